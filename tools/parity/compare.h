#pragma once

#include <string>
#include <vector>

#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

enum class Verdict { agrees, differs, wrong_shape, not_recomputed };
const char* text(Verdict verdict);

/// One golden tensor against what was recomputed.
struct Row {
  std::string name;
  double difference = 0;  // max|difference| / max|reference|; the plain difference where the reference is all zero
  Verdict verdict = Verdict::not_recomputed;
};

/// One row for every `out/`, `grad/` and `grad_in/` tensor of the golden file.
std::vector<Row> compare(const Golden& golden, const Recomputed& recomputed, double tolerance);
bool all_agree(const std::vector<Row>& rows);

/// The tolerance of a precision, where the user gives none.
double default_tolerance(DType dtype);

}  // namespace monoid::parity

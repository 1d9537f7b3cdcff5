#pragma once

#include <string>
#include <vector>

#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

enum class Verdict { agrees, differs, wrong_shape, not_recomputed, unexpected };
const char* text(Verdict verdict);

/// One golden tensor against what was recomputed.
struct Row {
  std::string name;
  double difference = 0;  // max|difference| / max|reference|; the plain difference where the reference is all zero
  Verdict verdict = Verdict::not_recomputed;
};

/// One row for every `out/`, `grad/` and `grad_in/` tensor of the golden file, and one for every parameter there
/// without a gradient that got one here. `out/masked_*` counts only where `in/attention_mask` [batch, time] is 1.
std::vector<Row> compare(const Golden& golden, const Recomputed& recomputed, double tolerance);
bool all_agree(const std::vector<Row>& rows);

/// The tolerance of a precision, where the user gives none: 1e-6 in f64, 1e-4 in f32, 3e-2 in bf16.
double default_tolerance(DType dtype);
/// The same for one file: at least 1e-5 if its reference rounded to f32.
double default_tolerance(DType dtype, const Golden& golden);

}  // namespace monoid::parity

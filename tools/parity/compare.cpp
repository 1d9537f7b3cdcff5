#include "monoid/tools/parity/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace monoid::parity {
namespace {

double relative_difference(const Tensor& actual, const Tensor& reference) {
  const std::vector<double> a = actual.to_vector<double>(), b = reference.to_vector<double>();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    difference = std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return largest > 0 ? difference / largest : difference;
}

Row compare_one(const std::string& name, const Tensor& reference, const Recomputed& recomputed, double tolerance) {
  const auto found = recomputed.find(name);
  if (found == recomputed.end() || !found->second.defined()) return {name, 0, Verdict::not_recomputed};
  if (!(found->second.shape() == reference.shape())) return {name, 0, Verdict::wrong_shape};
  const double difference = relative_difference(found->second, reference);
  return {name, difference, difference <= tolerance ? Verdict::agrees : Verdict::differs};
}

}  // namespace

const char* text(Verdict verdict) {
  switch (verdict) {
    case Verdict::agrees:
      return "ok";
    case Verdict::differs:
      return "DIFFERS";
    case Verdict::wrong_shape:
      return "WRONG SHAPE";
    case Verdict::not_recomputed:
      return "NOT RECOMPUTED";
  }
  return "";
}

std::vector<Row> compare(const Golden& golden, const Recomputed& recomputed, double tolerance) {
  std::vector<Row> rows;
  for (const char* group : {"out/", "grad/", "grad_in/"}) {
    for (const auto& [name, reference] : golden.tensors) {
      if (name.starts_with(group)) rows.push_back(compare_one(name, reference, recomputed, tolerance));
    }
  }
  return rows;
}

bool all_agree(const std::vector<Row>& rows) {
  return !rows.empty() &&
         std::all_of(rows.begin(), rows.end(), [](const Row& row) { return row.verdict == Verdict::agrees; });
}

double default_tolerance(DType dtype) { return dtype == DType::f64 ? 1e-6 : dtype == DType::f32 ? 1e-4 : 3e-2; }

}  // namespace monoid::parity

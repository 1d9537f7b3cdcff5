#include "monoid/tools/parity/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "monoid/ops/shape_ops.h"

namespace monoid::parity {
namespace {

// Which elements of a tensor count: bool, of its shape, or undefined for all.
Tensor counted(const Golden& golden, const std::string& name, const Tensor& reference) {
  if (!name.starts_with("out/masked_") || !golden.has("in/attention_mask")) return {};
  const Tensor mask = golden.get("in/attention_mask");
  return expand(unsqueeze(mask, 2), reference.shape()).to(DType::boolean);
}

double relative_difference(const Tensor& actual, const Tensor& reference, const Tensor& counts) {
  const std::vector<double> a = actual.to_vector<double>(), b = reference.to_vector<double>();
  const auto mask = counts.defined() ? counts.to_vector<uint8_t>() : std::vector<uint8_t>(a.size(), 1);
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!mask[i]) continue;
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    difference = std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return largest > 0 ? difference / largest : difference;
}

// A single number may be [] on one side and [1] on the other.
bool same_shape(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() || (a.elements() == 1 && b.elements() == 1);
}

Row compare_one(const Golden& golden, const std::string& name, const Recomputed& recomputed, double tolerance) {
  const Tensor reference = golden.get(name);
  const auto found = recomputed.find(name);
  if (found == recomputed.end() || !found->second.defined()) return {name, 0, Verdict::not_recomputed};
  if (!same_shape(found->second, reference)) return {name, 0, Verdict::wrong_shape};
  const double difference = relative_difference(found->second, reference, counted(golden, name, reference));
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
    case Verdict::unexpected:
      return "NO GRADIENT THERE";
  }
  return "";
}

std::vector<Row> compare(const Golden& golden, const Recomputed& recomputed, double tolerance) {
  std::vector<Row> rows;
  for (const char* group : {"out/", "grad/", "grad_in/"}) {
    for (const auto& [name, reference] : golden.tensors) {
      if (name.starts_with(group)) rows.push_back(compare_one(golden, name, recomputed, tolerance));
    }
  }
  for (const auto& [name, gradient] : recomputed) {
    if (!name.starts_with("grad/") || golden.has(name) || !golden.has("param/" + name.substr(5))) continue;
    const double largest = relative_difference(gradient, Tensor::zeros(gradient.shape(), DType::f64), {});
    if (largest > 0) rows.push_back({name, largest, Verdict::unexpected});
  }
  return rows;
}

bool all_agree(const std::vector<Row>& rows) {
  return !rows.empty() &&
         std::all_of(rows.begin(), rows.end(), [](const Row& row) { return row.verdict == Verdict::agrees; });
}

double default_tolerance(DType dtype) { return dtype == DType::f64 ? 1e-6 : dtype == DType::f32 ? 1e-4 : 3e-2; }

double default_tolerance(DType dtype, const Golden& golden) {
  constexpr double kRounded = 1e-5;
  return std::max(default_tolerance(dtype), golden.rounded_to_f32() ? kRounded : 0);
}

}  // namespace monoid::parity

#include "monoid/ops/norm.h"

#include <cmath>
#include <limits>

#include "monoid/core/tape.h"
#include "monoid/kernels/norm.h"
#include "monoid/ops/rows.h"

namespace monoid {
namespace {

Tensor row_statistics(const Tensor& x) {
  return Tensor::empty({x.shape().without(-1).elements()}, DType::f64, x.device());
}

// The operand as the kernels take it: contiguous, checked against the channels of x, undefined where absent.
Tensor checked_parameter(std::string_view op, std::string_view name, const Tensor& parameter, const Tensor& x) {
  if (!parameter.defined()) return {};
  check_same_device_and_dtype(op, x, parameter);
  check(parameter.shape() == Shape{x.size(-1)}, op, ": ", name, " ", describe(parameter), " does not fit ", describe(x),
        "; it needs one number a channel, [", x.size(-1), "]");
  return contiguous_or_copy(parameter);
}

Tensor checked_rows(std::string_view op, const Tensor& x) {
  check_defined(op, "x", x);
  check(is_floating(x.dtype()) && x.rank() >= 1, op, ": wants floating-point rows [..., channel], got ", describe(x));
  return with_contiguous_rows(x);
}

Tensor like_if(bool wanted, const Tensor& tensor) { return wanted ? Tensor::empty_like(tensor) : Tensor(); }

double machine_epsilon(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return std::numeric_limits<double>::epsilon();
    case DType::bf16:
      return 0x1p-7;
    default:
      return std::numeric_limits<float>::epsilon();
  }
}

Tensor rms_norm_with_floor(const char* op, const Tensor& x, const Tensor& weight, double eps, double floor) {
  const Tensor rows = checked_rows(op, x), scaling = checked_parameter(op, "weight", weight, x);
  Tensor y = Tensor::empty_like(x), scale = row_statistics(x);
  kernels::rms_norm(rows, scaling, eps, floor, y, scale);
  Tape::record(op, {x, weight}, {y},
               [=, wants_x = x.requires_grad(), wants_weight = weight.requires_grad()](const Tensors& dy) -> Tensors {
                 Tensor dx = like_if(wants_x, rows), dweight = like_if(wants_weight, scaling);
                 kernels::rms_norm_gradient(rows, scaling, scale, with_contiguous_rows(dy[0]), floor, dx, dweight);
                 return {dx, dweight};
               });
  return y;
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_defined("rms_norm", "x", x);
  return rms_norm_with_floor("rms_norm", x, weight, eps < 0 ? machine_epsilon(x.dtype()) : eps, 0);
}

// |x| = rms(x) * sqrt(channel), so this is an RMS norm without eps whose divisor is at least 1e-12 / sqrt(channel).
Tensor l2_rms_norm(const Tensor& x, const Tensor& gamma) {
  check_defined("l2_rms_norm", "x", x);
  check_defined("l2_rms_norm", "gamma", gamma);
  check(x.rank() >= 1, "l2_rms_norm: wants rows [..., channel], got ", describe(x));
  return rms_norm_with_floor("l2_rms_norm", x, gamma, 0, 1e-12 / std::sqrt(static_cast<double>(x.size(-1))));
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const Tensor rows = checked_rows("layer_norm", x);
  const Tensor scaling = checked_parameter("layer_norm", "weight", weight, x);
  const Tensor offset = checked_parameter("layer_norm", "bias", bias, x);
  Tensor y = Tensor::empty_like(x), mean = row_statistics(x), scale = row_statistics(x);
  kernels::layer_norm(rows, scaling, offset, eps, y, mean, scale);
  Tape::record("layer_norm", {x, weight, bias}, {y},
               [=, wants_x = x.requires_grad(), wants_weight = weight.requires_grad(),
                wants_bias = bias.requires_grad()](const Tensors& dy) -> Tensors {
                 Tensor dx = like_if(wants_x, rows), dweight = like_if(wants_weight, scaling);
                 Tensor dbias = like_if(wants_bias, offset);
                 kernels::layer_norm_gradient(rows, scaling, mean, scale, with_contiguous_rows(dy[0]), dx, dweight,
                                              dbias);
                 return {dx, dweight, dbias};
               });
  return y;
}

}  // namespace monoid

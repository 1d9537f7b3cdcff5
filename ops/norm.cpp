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

// Of the type that norms compute in: f32 for bf16.
double machine_epsilon(DType dtype) {
  return dtype == DType::f64 ? std::numeric_limits<double>::epsilon()
                             : static_cast<double>(std::numeric_limits<float>::epsilon());
}

// What is normalised: x, or x + residual, which the kernel writes to `sum`.
struct Stream {
  Stream(std::string_view op, const Tensor& first, const Tensor& second) : x(checked_rows(op, first)) {
    if (!second.defined()) return;
    check_same_device_and_dtype(op, first, second);
    check_shape(op, "residual", second, first.shape());
    residual = with_contiguous_rows(second);
    sum = Tensor::empty_like(first);
  }

  const Tensor& rows() const { return sum.defined() ? sum : x; }

  Tensor x, residual, sum;
};

Tensor rows_or_none(const Tensor& x) { return x.defined() ? with_contiguous_rows(x) : x; }

// The stream goes on under a handle of its own where the kernel wrote no sum.
Tensor carried(const Stream& stream, const Tensor& x) { return stream.sum.defined() ? stream.sum : x.detach(); }

NormAndSum rms_norm_of(const char* op, const Tensor& x, const Tensor& residual, const Tensor& weight, double eps,
                       double floor, bool carries) {
  Stream stream(op, x, residual);
  const Tensor scaling = checked_parameter(op, "weight", weight, x);
  Tensor y = Tensor::empty_like(x), scale = row_statistics(x);
  kernels::rms_norm(stream.x, stream.residual, scaling, eps, floor, stream.sum, y, scale);
  const NormAndSum result{y, carries ? carried(stream, x) : Tensor()};
  const auto gradient = [=, rows = stream.rows(), wants_x = x.requires_grad() || residual.requires_grad(),
                         wants_weight = weight.requires_grad()](const Tensors& cotangents) -> Tensors {
    const Tensor dy = rows_or_none(cotangents[0]), dsum = rows_or_none(cotangents[1]);
    if (!dy.defined()) return {dsum, dsum, {}};
    Tensor dx = like_if(wants_x, rows), dweight = like_if(wants_weight, scaling);
    kernels::rms_norm_gradient(rows, scaling, scale, dy, dsum, floor, dx, dweight);
    return {dx, dx, dweight};
  };
  Tape::record(op, {x, residual, weight}, {result.normed, result.sum}, gradient);
  return result;
}

NormAndSum layer_norm_of(const char* op, const Tensor& x, const Tensor& residual, const Tensor& weight,
                         const Tensor& bias, double eps, bool carries) {
  Stream stream(op, x, residual);
  const Tensor scaling = checked_parameter(op, "weight", weight, x), offset = checked_parameter(op, "bias", bias, x);
  Tensor y = Tensor::empty_like(x), mean = row_statistics(x), scale = row_statistics(x);
  kernels::layer_norm(stream.x, stream.residual, scaling, offset, eps, stream.sum, y, mean, scale);
  const NormAndSum result{y, carries ? carried(stream, x) : Tensor()};
  const auto gradient = [=, rows = stream.rows(), wants_x = x.requires_grad() || residual.requires_grad(),
                         wants_weight = weight.requires_grad(),
                         wants_bias = bias.requires_grad()](const Tensors& cotangents) -> Tensors {
    const Tensor dy = rows_or_none(cotangents[0]), dsum = rows_or_none(cotangents[1]);
    if (!dy.defined()) return {dsum, dsum, {}, {}};
    Tensor dx = like_if(wants_x, rows), dweight = like_if(wants_weight, scaling), dbias = like_if(wants_bias, offset);
    kernels::layer_norm_gradient(rows, scaling, mean, scale, dy, dsum, dx, dweight, dbias);
    return {dx, dx, dweight, dbias};
  };
  Tape::record(op, {x, residual, weight, bias}, {result.normed, result.sum}, gradient);
  return result;
}

}  // namespace

double rms_norm_eps(double eps, DType dtype) { return eps < 0 ? machine_epsilon(dtype) : eps; }

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_defined("rms_norm", "x", x);
  return rms_norm_of("rms_norm", x, {}, weight, rms_norm_eps(eps, x.dtype()), 0, false).normed;
}

NormAndSum add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps) {
  check_defined("add_rms_norm", "x", x);
  return rms_norm_of("add_rms_norm", x, residual, weight, rms_norm_eps(eps, x.dtype()), 0, true);
}

// |x| = rms(x) * sqrt(channel), so this is an RMS norm without eps whose divisor is at least 1e-12 / sqrt(channel).
Tensor l2_rms_norm(const Tensor& x, const Tensor& gamma) {
  check_defined("l2_rms_norm", "x", x);
  check(x.rank() >= 1, "l2_rms_norm: wants rows [..., channel], got ", describe(x));
  const double floor = 1e-12 / std::sqrt(static_cast<double>(x.size(-1)));
  return rms_norm_of("l2_rms_norm", x, {}, gamma, 0, floor, false).normed;
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return layer_norm_of("layer_norm", x, {}, weight, bias, eps, false).normed;
}

NormAndSum add_layer_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias,
                          double eps) {
  return layer_norm_of("add_layer_norm", x, residual, weight, bias, eps, true);
}

}  // namespace monoid

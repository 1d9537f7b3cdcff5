#include "monoid/ops/norm_linear.h"

#include "monoid/core/tape.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/norm.h"

namespace monoid {
namespace {

// In one kernel, or undefined. Operands that do not fit are left to the ops, which say what is wrong with them.
Tensor in_one_kernel(const Tensor& x, const FewRowsExtras& extras, const Tensor& weight) {
  const Tensor &norm_weight = extras.norm_weight, &bias = extras.bias;
  if (!x.defined() || !weight.defined() || !kernels::few_rows_linear.has(x.device().kind)) return {};
  if (Tape::records({x, norm_weight, weight, bias})) return {};
  const auto fits = [&](const Tensor& tensor, const Shape& shape) {
    return !tensor.defined() || (tensor.shape() == shape && tensor.is_contiguous() && tensor.dtype() == x.dtype() &&
                                 tensor.device() == x.device());
  };
  if (x.rank() < 1 || weight.rank() != 2 || !x.is_contiguous() || !is_floating(x.dtype())) return {};
  const int64_t in = x.size(-1), out = weight.size(0);
  if (!fits(weight, {out, in}) || !fits(norm_weight, {in}) || !fits(bias, {out})) return {};
  Tensor y;
  kernels::few_rows_linear(x.view({x.shape().without(-1).elements(), in}), weight, extras, y);
  return y.defined() ? y.view(x.shape().with(-1, out)) : y;
}

}  // namespace

LinearAndSum rms_norm_linear(const Tensor& x, const Tensor& norm_weight, double eps, const Tensor& weight,
                             const Tensor& bias, Activation activation) {
  check_defined("rms_norm_linear", "x", x);
  const FewRowsExtras extras{true, norm_weight, rms_norm_eps(eps, x.dtype()), bias, activation};
  const Tensor fused = in_one_kernel(x, extras, weight);
  if (fused.defined()) return {fused, x};
  const NormAndSum stream = add_rms_norm(x, {}, norm_weight, eps);
  return {
      activation == Activation::gelu ? linear_gelu(stream.normed, weight, bias) : linear(stream.normed, weight, bias),
      stream.sum};
}

}  // namespace monoid

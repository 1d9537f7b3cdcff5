#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// c[..., m, n] = sum over summed axes of a[..., m, k] b[..., k, n] (+ bias[n]) (+ addend[..., m, n], where no axis is
/// summed); undefined for none. All have the same rank; a and b have any strides, addend those of c. A leading axis
/// where a or b has extent 1 is broadcast; one where only c has extent 1 is summed over: so the gradient of a broadcast
/// operand is the same kernel with the operands transposed.
using Matmul = void(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c);

/// dweight[..., out, in] = dy[..., rows, out]^T x[..., rows, in] and dbias[..., 1, out] = the column sums of dy, both
/// summed over the leading axes, where they have extent 1. All have the same rank; dy and x have any strides.
using LinearGradient = void(const Tensor& dy, const Tensor& x, Tensor& dweight, Tensor& dbias);

namespace kernels {
inline constinit Kernel<Matmul> matmul{"matmul"};
inline constinit Kernel<LinearGradient> linear_gradient{"linear_gradient"};
}  // namespace kernels

namespace cpu {
Matmul matmul;
LinearGradient linear_gradient;
}  // namespace cpu

namespace cuda {
Matmul matmul;
LinearGradient linear_gradient;
}  // namespace cuda

}  // namespace monoid

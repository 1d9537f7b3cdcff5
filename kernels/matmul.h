#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// c[..., m, n] = sum over summed axes of a[..., m, k] b[..., k, n] (+ bias[n]) (+ addend[..., m, n]); undefined for
/// none. All have the same rank; a and b have any strides, addend those of c. A leading axis where a or b has extent 1
/// is broadcast; one where only c has extent 1 is summed over: so the gradient of a broadcast operand is the same
/// kernel with the operands transposed.
using Matmul = void(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c);

namespace kernels {
inline constinit Kernel<Matmul> matmul{"matmul"};
}  // namespace kernels

namespace cpu {
Matmul matmul;
}  // namespace cpu

namespace cuda {
Matmul matmul;
}  // namespace cuda

}  // namespace monoid

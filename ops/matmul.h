#pragma once

#include "monoid/core/tensor.h"
#include "monoid/kernels/matmul_precision.h"

namespace monoid {

/// a [..., m, k] times b [..., k, n] is [..., m, n]; leading (batch) axes broadcast by numpy's rules. f32 or f64; f32
/// or bf16 on CUDA, with sums in f32. Transposed and strided operands are taken as they are. A vector is an Error:
/// unsqueeze() it to say which it is.
Tensor matmul(const Tensor& a, const Tensor& b);

/// x [..., in] times the transpose of weight [out, in], plus bias [out] and residual [..., out] if given: [..., out].
/// The sums cost no pass of their own.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Tensor& residual = {});

/// gelu(linear(x, weight, bias)) with the exact (erf) GELU: one pass over the result adds the bias, one more makes the
/// gradients of both.
Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace monoid

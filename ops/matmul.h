#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

/// a [..., m, k] times b [..., k, n] is [..., m, n]; leading (batch) axes broadcast by numpy's rules. f32 or f64.
/// Transposed and strided operands are taken as they are. A vector is an Error: unsqueeze() it to say which it is.
Tensor matmul(const Tensor& a, const Tensor& b);

/// x [..., in] times the transpose of weight [out, in], plus bias [out] if given: [..., out]. f32 or f64.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace monoid

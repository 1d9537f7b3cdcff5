#pragma once

#include "monoid/core/kernel.h"
#include "monoid/kernels/functions.h"

namespace monoid {

// Outputs are contiguous; inputs may be strided and, where there are several, broadcast to the shape of the output.

/// y = function(x), of one shape. y may be x itself.
using Unary = void(UnaryFunction function, const Tensor& x, Scalars scalars, Tensor& y);
/// dx from dy and what the function saves (`saved_by`): its x, its y, or anything of that shape where it needs neither.
using UnaryGradient = void(UnaryFunction function, const Tensor& saved, const Tensor& dy, Scalars scalars, Tensor& dx);
/// out = function(a, b).
using Binary = void(BinaryFunction function, const Tensor& a, const Tensor& b, Tensor& out);
/// Gradients of both operands at the shape of dy, in one pass; an undefined one is not wanted.
using BinaryGradient = void(BinaryFunction function, const Tensor& a, const Tensor& b, const Tensor& dy, Tensor& da,
                            Tensor& db);
/// out (bool) = comparison(a, b), any dtype but bf16.
using Compare = void(Comparison comparison, const Tensor& a, const Tensor& b, Tensor& out);
/// out = condition (bool) ? a : b, any dtype.
using Where = void(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out);

namespace kernels {
inline constinit Kernel<Unary> unary{"unary"};
inline constinit Kernel<UnaryGradient> unary_gradient{"unary_gradient"};
inline constinit Kernel<Binary> binary{"binary"};
inline constinit Kernel<BinaryGradient> binary_gradient{"binary_gradient"};
inline constinit Kernel<Compare> compare{"compare"};
inline constinit Kernel<Where> where{"where"};
}  // namespace kernels

namespace cpu {
Unary unary;
UnaryGradient unary_gradient;
Binary binary;
BinaryGradient binary_gradient;
Compare compare;
Where where;
}  // namespace cpu

namespace cuda {
Unary unary;
UnaryGradient unary_gradient;
Binary binary;
BinaryGradient binary_gradient;
Compare compare;
Where where;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/core/tape.h"

namespace monoid {

// Elementwise ops, f32 and f64. Operands of two-operand ops broadcast as in numpy and must have one dtype and one
// device; anything else is an Error that names both. Outputs are contiguous. All are differentiable except comparisons.

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
/// NaN on either side is NaN. At a tie each operand gets half of the gradient.
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
/// a silu(b), in one pass.
Tensor silu_gated(const Tensor& a, const Tensor& b);

Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
// The number is rounded to the tensor's dtype.
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& x);

Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
/// log(1 + x) with the full precision of a small x.
Tensor log1p(const Tensor& x);
/// 1 / (1 + exp(-x)).
Tensor sigmoid(const Tensor& x);
/// log(1 + exp(x)), for any x: no threshold.
Tensor softplus(const Tensor& x);
/// log(sigmoid(x)) = -softplus(-x).
Tensor log_sigmoid(const Tensor& x);
Tensor tanh(const Tensor& x);
/// max(x, 0); the derivative at 0 is 0.
Tensor relu(const Tensor& x);
/// x sigmoid(x).
Tensor silu(const Tensor& x);
Tensor sqrt(const Tensor& x);
/// 1 / sqrt(x).
Tensor rsqrt(const Tensor& x);
/// |x|; the derivative at 0 is 0.
Tensor abs(const Tensor& x);
Tensor neg(const Tensor& x);
Tensor square(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor erf(const Tensor& x);

enum class GeluForm { exact, tanh };
/// x Phi(x), Phi the normal distribution function; or its tanh approximation (Hendrycks and Gimpel, 2016). Both are
/// relatively accurate in the negative tail, and 0 at -infinity.
Tensor gelu(const Tensor& x, GeluForm form = GeluForm::exact);

/// x^exponent; NaN for negative x and a fractional exponent.
Tensor pow(const Tensor& x, double exponent);
/// x cut to [low, high]; NaN stays NaN. The gradient passes where low <= x <= high.
Tensor clamp(const Tensor& x, double low, double high);

/// x in another dtype (x itself if it has it); the gradient comes back in the dtype of x. Floating to integer
/// truncates.
Tensor cast(const Tensor& x, DType dtype);

/// bool tensors, from any dtype but bf16; false where an operand is NaN.
Tensor equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);

/// condition ? a : b for a bool condition; all three broadcast. Any dtype of a and b.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

}  // namespace monoid

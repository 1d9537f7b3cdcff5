#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

// Norms over the last axis of x: [..., channel] in, the same shape out, f32 or f64 on the CPU, f32 or bf16 on CUDA.
// Weights and biases are [channel] of x's dtype and device, anything else is an Error; undefined ones are left out. The
// last axis of x may belong to a wider packed row; only an x whose channels are not adjacent is copied. Statistics are
// computed in double, so that offsets and magnitudes up to the square root of the greatest double are safe.

/// x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, "Root mean square layer normalization", 2019). A negative
/// eps stands for the machine epsilon, of f32 for bf16 too. With eps = 0 a zero row is 0 / 0 = NaN.
Tensor rms_norm(const Tensor& x, const Tensor& weight = {}, double eps = -1);

/// What an RMS norm of x in `dtype` adds to the mean square for this eps, which may be negative.
double rms_norm_eps(double eps, DType dtype);

/// x / max(|x|, 1e-12) * sqrt(channel) * gamma, with |x| the Euclidean length of a row: the RMSNorm of the minGRU
/// reference models. A zero row gives zeros, and its gradient is that of the constant divisor 1e-12.
Tensor l2_rms_norm(const Tensor& x, const Tensor& gamma = {});

/// (x - mean) / sqrt(variance + eps) * weight + bias, with the variance over channels, not channels - 1 (Ba, Kiros and
/// Hinton, "Layer normalization", 2016).
Tensor layer_norm(const Tensor& x, const Tensor& weight = {}, const Tensor& bias = {}, double eps = 1e-5);

struct NormAndSum {
  Tensor normed;  // norm(sum)
  Tensor sum;     // x + residual, or x itself for an undefined residual
};

/// A norm on a residual stream: normed goes into the next block, sum carries on beside it. One pass forward adds and
/// normalises; one pass backward adds the gradients of both ways, which is why a stream without a new residual to add
/// gains from it too: (normed, x) = add_rms_norm(x, {}, weight). x and residual have one shape and dtype.
NormAndSum add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight = {}, double eps = -1);
NormAndSum add_layer_norm(const Tensor& x, const Tensor& residual, const Tensor& weight = {}, const Tensor& bias = {},
                          double eps = 1e-5);

}  // namespace monoid

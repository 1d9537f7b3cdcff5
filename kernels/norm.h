#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// Normalisation of rows [..., channel]: y = (x - mean) * scale * weight + bias. With a residual, x + residual takes the
// place of x: it is rounded, stored in `sum`, and normalised in the same pass. x, residual, dy and dsum have contiguous
// rows with any strides between them; everything else is contiguous. Weight and bias are [channel] or undefined. The
// statistics are f64 whatever x is: one number a row costs nothing, and x - mean must not lose what an offset leaves of
// x. The normalised row is computed again in the gradient.

/// scale = 1 / max(sqrt(mean(x^2) + eps), floor), mean = 0, no bias. `scale` is f64 [rows]. residual and sum are both
/// undefined or both given.
using RmsNorm = void(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps, double floor,
                     Tensor& sum, Tensor& y, Tensor& scale);
/// x is what was normalised: the sum, if there was a residual. dx += dsum, the cotangent of the sum, unless that is
/// undefined. Rows whose scale is 1 / floor have a constant scale. An undefined dx or dweight is not wanted.
using RmsNormGradient = void(const Tensor& x, const Tensor& weight, const Tensor& scale, const Tensor& dy,
                             const Tensor& dsum, double floor, Tensor& dx, Tensor& dweight);

/// scale = 1 / sqrt(variance + eps), variance in two passes. `mean` and `scale` are f64 [rows].
using LayerNorm = void(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias, double eps,
                       Tensor& sum, Tensor& y, Tensor& mean, Tensor& scale);
/// An undefined dx, dweight or dbias is not wanted.
using LayerNormGradient = void(const Tensor& x, const Tensor& weight, const Tensor& mean, const Tensor& scale,
                               const Tensor& dy, const Tensor& dsum, Tensor& dx, Tensor& dweight, Tensor& dbias);

namespace kernels {
inline constinit Kernel<RmsNorm> rms_norm{"rms_norm"};
inline constinit Kernel<RmsNormGradient> rms_norm_gradient{"rms_norm_gradient"};
inline constinit Kernel<LayerNorm> layer_norm{"layer_norm"};
inline constinit Kernel<LayerNormGradient> layer_norm_gradient{"layer_norm_gradient"};
}  // namespace kernels

namespace cpu {
RmsNorm rms_norm;
RmsNormGradient rms_norm_gradient;
LayerNorm layer_norm;
LayerNormGradient layer_norm_gradient;
}  // namespace cpu

namespace cuda {
RmsNorm rms_norm;
RmsNormGradient rms_norm_gradient;
LayerNorm layer_norm;
LayerNormGradient layer_norm_gradient;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// The gate of a GEGLU feed-forward, on packed rows [..., 2 * channel]: values first, then gates. All are contiguous.

/// y [..., channel] = value * gelu(gate), exact (erf).
using GatedGelu = void(const Tensor& x, Tensor& y);
/// dx [..., 2 * channel] = (dy gelu(gate), dy value gelu'(gate)).
using GatedGeluGradient = void(const Tensor& x, const Tensor& dy, Tensor& dx);

namespace kernels {
inline constinit Kernel<GatedGelu> gated_gelu{"gated_gelu"};
inline constinit Kernel<GatedGeluGradient> gated_gelu_gradient{"gated_gelu_gradient"};
}  // namespace kernels

namespace cpu {
GatedGelu gated_gelu;
GatedGeluGradient gated_gelu_gradient;
}  // namespace cpu

namespace cuda {
GatedGelu gated_gelu;
GatedGeluGradient gated_gelu_gradient;
}  // namespace cuda

}  // namespace monoid

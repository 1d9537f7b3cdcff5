#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// GELU behind a product whose bias it adds itself, so that the gradient of the bias is summed where GELU's gradient is
// made and not read again. x, y, dy and dx are contiguous rows [..., channel], bias and dbias [channel].

/// y = gelu(x + bias), exact (erf); an undefined bias is zero.
using BiasGelu = void(const Tensor& x, const Tensor& bias, Tensor& y);
/// dx = gelu'(x + bias) dy and dbias = dx summed over the rows; an undefined dbias is not wanted.
using BiasGeluGradient = void(const Tensor& x, const Tensor& bias, const Tensor& dy, Tensor& dx, Tensor& dbias);

namespace kernels {
inline constinit Kernel<BiasGelu> bias_gelu{"bias_gelu"};
inline constinit Kernel<BiasGeluGradient> bias_gelu_gradient{"bias_gelu_gradient"};
}  // namespace kernels

namespace cpu {
BiasGelu bias_gelu;
BiasGeluGradient bias_gelu_gradient;
}  // namespace cpu

namespace cuda {
BiasGelu bias_gelu;
BiasGeluGradient bias_gelu_gradient;
}  // namespace cuda

}  // namespace monoid

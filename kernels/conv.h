#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// Depthwise causal convolution over time, channels last. x, y [batch, time, channel]; weight [channel, kernel]; the
// tail [batch, kernel - 1, channel] holds the inputs before time 0, undefined for zeros. Channels have stride 1.

/// y[t] = bias + sum_j weight[j] e[t + j], where e is the tail followed by x. bias undefined for none.
using CausalConv = void(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& tail, Tensor& y);
/// From dy and the gradient of the final tail (the last kernel - 1 inputs; undefined for zeros): each of the last four
/// is written unless undefined. dx, dtail and dy have stride 1 along channels; dweight and dbias are contiguous.
using CausalConvGradient = void(const Tensor& dy, const Tensor& dfinal, const Tensor& x, const Tensor& weight,
                                const Tensor& tail, Tensor& dx, Tensor& dtail, Tensor& dweight, Tensor& dbias);

namespace kernels {
inline constinit Kernel<CausalConv> causal_conv{"causal_conv"};
inline constinit Kernel<CausalConvGradient> causal_conv_gradient{"causal_conv_gradient"};
}  // namespace kernels

namespace cpu {
CausalConv causal_conv;
CausalConvGradient causal_conv_gradient;
}  // namespace cpu

namespace cuda {
CausalConv causal_conv;
CausalConvGradient causal_conv_gradient;
}  // namespace cuda

}  // namespace monoid

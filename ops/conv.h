#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

struct ConvResult {
  Tensor output;  // [batch, time, channel]
  Tensor tail;    // [batch, kernel - 1, channel]: the last inputs, the state that continues the sequence
};

/// Each channel filtered by its own weights over the present and the past, channels last:
///   output[t] = bias + sum_j weight[:, j] * x[t - kernel + 1 + j]        (as a left-padded, grouped torch Conv1d)
/// x [batch, time, channel], weight [channel, kernel], bias [channel], f32 or f64, on CUDA f32 or bf16. Inputs before
/// time 0 come from `tail` [batch, kernel - 1, channel], zeros if not given; feeding the returned tail to the next call
/// makes chunks equal the whole. Differentiable in all of them, any time (0 and shorter than the kernel included).
ConvResult causal_depthwise_conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                                   const Tensor& tail = {});

/// Dense convolution over time, channels last:
///   output[t] = bias + sum_j x[t - pad_left + j] weight[:, :, j]^T,   x = 0 outside the sequence
/// x [batch, time, in], weight [out, in, kernel], bias [out] or undefined: [batch, time + pads - kernel + 1, out].
/// pad_left = kernel - 1, pad_right = 0 is causal. f32 or f64, on CUDA f32 or bf16.
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t pad_left, int64_t pad_right);

}  // namespace monoid

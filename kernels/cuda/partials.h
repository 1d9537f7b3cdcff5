#pragma once

#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {

// Gradients of parameters are sums over all rows. A kernel leaves one row of f32 partial sums a block, and these are
// added in the order of the blocks: no atomics, the same bits every time.

/// partials [count, taps + 1 or taps, channels] summed over the first axis: dweight [channels, taps] from the taps,
/// dbias [channels] from the row behind them. An undefined gradient is not wanted.
void add_partials(const Launch& launch, const Tensor& partials, Tensor& dweight, Tensor& dbias);

}  // namespace monoid::cuda

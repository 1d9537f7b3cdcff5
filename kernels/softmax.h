#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// Softmax of rows [..., length]: inputs have contiguous rows with any strides between them, outputs are contiguous.
// A row without any probability, all -infinity, gives 0 (log: -infinity) and a zero gradient; infinite elements share
// a row equally, as in the limit; a NaN makes its row NaN.

/// y = exp(x - max) / sum(exp(x - max)), or its logarithm.
using Softmax = void(const Tensor& x, Tensor& y);
/// dx from the output y: y (dy - sum(y dy)), or dy - exp(y) sum(dy) for the logarithm.
using SoftmaxGradient = void(const Tensor& y, const Tensor& dy, Tensor& dx);

namespace kernels {
inline constinit Kernel<Softmax> softmax{"softmax"};
inline constinit Kernel<SoftmaxGradient> softmax_gradient{"softmax_gradient"};
inline constinit Kernel<Softmax> log_softmax{"log_softmax"};
inline constinit Kernel<SoftmaxGradient> log_softmax_gradient{"log_softmax_gradient"};
}  // namespace kernels

namespace cpu {
Softmax softmax, log_softmax;
SoftmaxGradient softmax_gradient, log_softmax_gradient;
}  // namespace cpu

namespace cuda {
Softmax softmax, log_softmax;
SoftmaxGradient softmax_gradient, log_softmax_gradient;
}  // namespace cuda

}  // namespace monoid

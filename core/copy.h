#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// The kernels the core itself needs: tensors copy and fill themselves, the tape adds gradients up.

/// to[i] = from[i], any strides, dtypes converted (floating to integer truncates, to bool compares with 0).
using Copy = void(const Tensor& from, Tensor& to);
/// x[i] = value, any strides.
using Fill = void(Tensor& x, double value);
/// total[i] += x[i], one dtype; total is contiguous.
using Accumulate = void(const Tensor& x, Tensor& total);

namespace kernels {
inline constinit Kernel<Copy> copy{"copy"};
inline constinit Kernel<Fill> fill{"fill"};
inline constinit Kernel<Accumulate> accumulate{"accumulate"};
}  // namespace kernels

namespace cpu {
Copy copy;
Fill fill;
Accumulate accumulate;
}  // namespace cpu

namespace cuda {
Copy copy;
Fill fill;
Accumulate accumulate;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// result = (x summed over every axis where `result` has extent 1) / divisor. `result` is contiguous and has the rank
/// of x; x has any strides.
using Sum = void(const Tensor& x, double divisor, Tensor& result);

namespace kernels {
inline constinit Kernel<Sum> sum{"sum"};
}  // namespace kernels

namespace cpu {
Sum sum;
}  // namespace cpu

namespace cuda {
Sum sum;
}  // namespace cuda

}  // namespace monoid

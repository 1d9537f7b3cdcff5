#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// y[i] = x[i] / (1 - probability), or 0 where uniform_unit(random_bits(seed, first + i)) < probability; i counts in
/// row-major order. x may be strided, y is contiguous, first is a multiple of four. The same call on dy gives dx.
using Dropout = void(const Tensor& x, double probability, uint64_t seed, uint64_t first, Tensor& y);

namespace kernels {
inline constinit Kernel<Dropout> dropout{"dropout"};
}  // namespace kernels

namespace cpu {
Dropout dropout;
}  // namespace cpu

namespace cuda {
Dropout dropout;
}  // namespace cuda

}  // namespace monoid

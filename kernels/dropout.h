#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// y[i] = x[i] / (1 - probability), or 0 where uniform_unit(random_bits(seed, base + first + i)) < probability; i
/// counts in row-major order. x may be strided, y is contiguous; base is i64 [] on the device of x, or undefined for 0;
/// base and first are multiples of four. The same call on dy gives dx.
using Dropout = void(const Tensor& x, double probability, uint64_t seed, uint64_t first, const Tensor& base, Tensor& y);

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

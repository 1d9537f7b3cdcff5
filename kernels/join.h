#pragma once

#include <span>

#include "monoid/core/kernel.h"

namespace monoid {

/// Part of a joined tensor: `extent` elements of the axis, of any strides, or zeros where `x` is undefined.
struct JoinPiece {
  Tensor x;
  int64_t extent;
};

/// whole = the pieces one after another along `axis`, which they fill; `whole` is contiguous and of their dtype.
using Join = void(std::span<const JoinPiece> pieces, int axis, Tensor& whole);

namespace kernels {
inline constinit Kernel<Join> join{"join"};
}  // namespace kernels

namespace cpu {
Join join;
}  // namespace cpu

namespace cuda {
Join join;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

/// What the kernels over the last axis take: `x` itself where that axis is contiguous, whatever the others' strides,
/// else a contiguous copy (outside the tape, for use inside ops).
inline Tensor with_contiguous_rows(const Tensor& x) {
  return x.size(-1) <= 1 || x.strides().back() == 1 ? x : x.clone();
}

inline Tensor contiguous_or_copy(const Tensor& x) { return x.is_contiguous() ? x : x.clone(); }

}  // namespace monoid

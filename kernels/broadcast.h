#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

/// Strides of `tensor` seen as a tensor of `shape`, 0 along broadcast axes (numpy alignment of trailing axes).
inline Strides broadcast_strides(const Tensor& tensor, const Shape& shape) {
  Strides strides = shape;
  const int missing = shape.rank() - tensor.rank();
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const bool broadcast = axis < missing || (tensor.size(axis - missing) == 1 && shape[axis] != 1);
    strides[axis] = broadcast ? 0 : tensor.strides()[axis - missing];
  }
  return strides;
}

}  // namespace monoid

#pragma once

#include <cstdint>

#include "monoid/core/tensor.h"

namespace monoid::cuda {

// Kernels over the last axis see a tensor [..., length] as rows: contiguous inside, any strides between them.

/// Where each row of a tensor starts, in elements; leading axes that follow each other in memory are one.
class RowOffsets {
 public:
  RowOffsets() = default;
  explicit RowOffsets(const Tensor& x) {
    for (int axis = 0; axis + 1 < x.rank(); ++axis) {
      const int64_t extent = x.size(axis), step = x.strides()[axis];
      if (extent == 1) continue;
      if (axes_ > 0 && steps_[axes_ - 1] == step * extent) {
        extents_[axes_ - 1] *= extent;
        steps_[axes_ - 1] = step;
      } else {
        extents_[axes_] = extent;
        steps_[axes_++] = step;
      }
    }
  }

  __device__ int64_t operator()(int64_t row) const {
    if (axes_ <= 1) return row * steps_[0];
    int64_t offset = 0;
#pragma unroll 1
    for (int axis = axes_ - 1; axis > 0; --axis) {
      offset += row % extents_[axis] * steps_[axis];
      row /= extents_[axis];
    }
    return offset + row * steps_[0];
  }
  /// True where every row begins at a multiple of `count` elements from the first.
  bool multiples_of(int64_t count) const {
    bool all = true;
    for (int axis = 0; axis < axes_; ++axis) all = all && steps_[axis] % count == 0;
    return all;
  }

 private:
  int axes_ = 0;
  int64_t extents_[Shape::kMaxRank] = {}, steps_[Shape::kMaxRank] = {};
};

inline int64_t row_length(const Tensor& x) { return x.shape().back(); }
inline int64_t row_count(const Tensor& x) { return x.shape().without(-1).elements(); }

}  // namespace monoid::cuda

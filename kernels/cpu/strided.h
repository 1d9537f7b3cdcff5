#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "monoid/core/tensor.h"
#include "monoid/kernels/broadcast.h"

namespace monoid::cpu {

/// Visits N equally shaped (possibly broadcast, stride 0) operands row by row along their last axis, after merging
/// axes that are contiguous in all of them. Offsets and strides are in elements.
template <size_t N>
class StridedRows {
 public:
  StridedRows(const Shape& shape, const std::array<Strides, N>& strides) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      std::array<int64_t, N> step;
      for (size_t n = 0; n < N; ++n) step[n] = strides[n][axis];
      if (rank_ > 0 && merges(shape[axis], step)) {
        extents_[rank_ - 1] *= shape[axis];
        steps_[rank_ - 1] = step;
      } else {
        extents_[rank_] = shape[axis];
        steps_[rank_++] = step;
      }
    }
    if (rank_ == 0) {
      extents_[0] = 1;
      steps_[0].fill(1);
      rank_ = 1;
    }
    rows_ = 1;
    for (size_t axis = 0; axis + 1 < rank_; ++axis) rows_ *= extents_[axis];
    if (shape.elements() == 0) rows_ = 0;
  }

  int64_t rows() const { return rows_; }
  int64_t row_length() const { return extents_[rank_ - 1]; }
  /// Strides of the operands along a row.
  const std::array<int64_t, N>& row_steps() const { return steps_[rank_ - 1]; }

  /// Offsets of the operands at the start of a row.
  std::array<int64_t, N> row_offsets(int64_t row) const {
    std::array<int64_t, N> offsets{};
    for (size_t axis = rank_ - 1; axis-- > 0;) {
      const int64_t index = row % extents_[axis];
      row /= extents_[axis];
      for (size_t n = 0; n < N; ++n) offsets[n] += index * steps_[axis][n];
    }
    return offsets;
  }

 private:
  bool merges(int64_t extent, const std::array<int64_t, N>& step) const {
    for (size_t n = 0; n < N; ++n) {
      if (steps_[rank_ - 1][n] != step[n] * extent) return false;
    }
    return true;
  }

  size_t rank_ = 0;
  int64_t rows_ = 0;
  std::array<int64_t, Shape::kMaxRank> extents_{};
  std::array<std::array<int64_t, N>, Shape::kMaxRank> steps_{};
};

}  // namespace monoid::cpu

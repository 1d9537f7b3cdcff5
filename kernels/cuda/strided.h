#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "monoid/core/shape.h"
#include "monoid/kernels/host_device.h"

namespace monoid::cuda {

/// What a launch counts its elements to: indices stay below 2^31, so that they divide fast.
inline constexpr int64_t kMostIndices = int64_t{1} << 30;

/// Division of indices by an extent known before the launch: a multiplication and a shift (Granlund and Montgomery,
/// "Division by invariant integers using multiplication", 1994). The extent is at least 2.
struct Divisor {
  uint32_t extent = 0, multiplier = 0, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t divisor) : extent(static_cast<uint32_t>(divisor)) {
    shift = static_cast<uint32_t>(std::bit_width(extent - 1)) - 1;
    multiplier = static_cast<uint32_t>(((uint64_t{1} << (32 + shift)) + extent - 1) / extent);
  }
#ifdef __CUDACC__
  __device__ uint32_t quotient(uint32_t index) const { return __umulhi(index, multiplier) >> shift; }
#endif
};

/// N operands of one shape, broadcast ones with stride 0, after axes that step evenly in all of them were merged: a
/// kernel turns an index into the offsets of each.
template <int N>
struct Axes {
  int rank = 0;
  std::array<int64_t, Shape::kMaxRank> extents{};
  Divisor divisors[Shape::kMaxRank];
  int64_t steps[Shape::kMaxRank][N] = {};

  Axes() = default;
  Axes(const Shape& shape, const std::array<Strides, N>& strides) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      bool merges = rank > 0;
      for (int n = 0; n < N && merges; ++n) merges = steps[rank - 1][n] == strides[n][axis] * shape[axis];
      if (merges) {
        extents[rank - 1] *= shape[axis];
      } else {
        extents[rank++] = shape[axis];
      }
      for (int n = 0; n < N; ++n) steps[rank - 1][n] = strides[n][axis];
    }
    prepare();
  }

  /// To be called after a change of the extents.
  void prepare() {
    for (int axis = 0; axis < rank; ++axis) {
      if (extents[axis] > 1 && extents[axis] < int64_t{1} << 31) divisors[axis] = Divisor(extents[axis]);
    }
  }
  /// `extent` indices of the first axis; offsets count from the first of them.
  Axes part(int64_t extent) const {
    Axes result = *this;
    result.extents[0] = extent;
    if (extent == 1) {  // has no divisor: the axis goes
      --result.rank;
      for (int axis = 0; axis + 1 < Shape::kMaxRank; ++axis) {
        result.extents[axis] = extents[axis + 1];
        std::copy_n(steps[axis + 1], N, result.steps[axis]);
      }
    }
    result.prepare();
    return result;
  }
  int64_t count() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= extents[axis];
    return product;
  }
  /// The innermost axis; one element where there is no axis.
  int64_t inner_extent() const { return rank > 0 ? extents[rank - 1] : 1; }
  MONOID_HOST_DEVICE int64_t inner_step(int n) const { return rank > 0 ? steps[rank - 1][n] : 1; }

#ifdef __CUDACC__
  __device__ __forceinline__ void offsets(uint32_t index, int64_t (&at)[N]) const {
#pragma unroll
    for (int n = 0; n < N; ++n) at[n] = 0;
    for (int axis = rank - 1; axis > 0; --axis) {
      const uint32_t outer = divisors[axis].quotient(index), along = index - outer * divisors[axis].extent;
#pragma unroll
      for (int n = 0; n < N; ++n) at[n] += along * steps[axis][n];
      index = outer;
    }
#pragma unroll
    for (int n = 0; n < N; ++n) at[n] += index * steps[0][n];
  }
#endif
};

}  // namespace monoid::cuda

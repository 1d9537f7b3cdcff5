#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <utility>

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

  /// Without one axis.
  Axes without(int axis) const {
    Axes result = *this;
    --result.rank;
    for (; axis + 1 < Shape::kMaxRank; ++axis) {
      result.extents[axis] = extents[axis + 1];
      std::copy_n(steps[axis + 1], N, result.steps[axis]);
    }
    result.prepare();
    return result;
  }
  /// `extent` indices of the first axis; offsets count from the first of them.
  Axes part(int64_t extent) const {
    if (extent == 1) return without(0);  // as 1 is no divisor
    Axes result = *this;
    result.extents[0] = extent;
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

  /// Whether the steps of an operand along the first `count` axes are multiples of `divisor`.
  bool steps_divide(int n, int count, int64_t divisor) const {
    for (int axis = 0; axis < count; ++axis) {
      if (steps[axis][n] % divisor != 0) return false;
    }
    return true;
  }

#ifdef __CUDACC__
  /// Where an element is in each operand. A single axis may be longer than indices that divide.
  __device__ __forceinline__ void offsets(int64_t index, int64_t (&at)[N]) const {
#pragma unroll
    for (int n = 0; n < N; ++n) at[n] = rank <= 1 ? index * steps[0][n] : 0;
    auto rest = static_cast<uint32_t>(index);
    for (int axis = rank - 1; axis > 0; --axis) {
      const uint32_t outer = divisors[axis].quotient(rest), along = rest - outer * divisors[axis].extent;
#pragma unroll
      for (int n = 0; n < N; ++n) at[n] += along * steps[axis][n];
      rest = outer;
    }
#pragma unroll
    for (int n = 0; n < N; ++n) at[n] += rank <= 1 ? 0 : rest * steps[0][n];
  }
  /// The same for a single operand.
  __device__ __forceinline__ int64_t offset(int64_t index) const {
    int64_t at[N];
    offsets(index, at);
    return at[0];
  }
#endif

 private:
  void prepare() {
    for (int axis = 0; axis < rank; ++axis) {
      if (extents[axis] > 1 && extents[axis] < int64_t{1} << 31) divisors[axis] = Divisor(extents[axis]);
    }
  }
};

/// The axes in the order in which the first operand lies in memory.
template <int N>
Axes<N> axes_in_memory_order(Shape shape, std::array<Strides, N> strides) {
  for (int last = shape.rank() - 1; last > 0; --last) {
    for (int axis = 0; axis < last; ++axis) {
      if (std::abs(strides[0][axis]) >= std::abs(strides[0][axis + 1])) continue;
      std::swap(shape[axis], shape[axis + 1]);
      for (Strides& steps : strides) std::swap(steps[axis], steps[axis + 1]);
    }
  }
  return Axes<N>(shape, strides);
}

}  // namespace monoid::cuda

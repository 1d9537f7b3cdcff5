#pragma once

#include "monoid/kernels/cuda/device/row_group.cuh"
#include "monoid/kernels/cuda/device/rows.cuh"
#include "monoid/kernels/cuda/launch.h"

// What the norms and their gradients share.

namespace monoid::cuda {

/// x -> (x - mean) * scale. The mean is a pair of floats: subtracting the first is exact near an offset, the second
/// carries what it rounds away.
template <bool kCentred>
struct Normalise {
  __device__ Normalise(double mean, double row_scale)
      : high(static_cast<float>(mean)), low(static_cast<float>(mean - high)), scale(static_cast<float>(row_scale)) {}

  __device__ float operator()(float x) const {
    if constexpr (kCentred) return ((x - high) - low) * scale;
    return x * scale;
  }

  float high, low, scale;
};

/// Packs that all these tensors can be accessed by: rows begin at multiples of `wide` elements.
template <class T, class... Tensors>
bool rows_in_packs(const Tensors&... tensors) {
  const auto fits = [](const Tensor& x) {
    return !x.defined() || (aligned_for<kWide<T>>(x.template data<T>()) && row_length(x) % kWide<T> == 0 &&
                            RowOffsets(x).multiples_of(kWide<T>));
  };
  return (fits(tensors) && ...);
}

/// Calls body.operator()<V, kPacks>(): packs of sixteen bytes or single elements held in registers, or rows of any
/// length read again for each pass.
template <class T, class Body>
void dispatch_row_parts(const RowGroups& groups, int64_t length, bool wide, Body body) {
  if (!groups.holds(length)) return body.template operator()<1, 0>();
  if (wide) return body.template operator()<kWide<T>, kHeld / kWide<T>>();
  return body.template operator()<1, kHeld>();
}

}  // namespace monoid::cuda

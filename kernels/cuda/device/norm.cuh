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
  __device__ Normalise(float mean_high, float mean_low, float row_scale)
      : high(mean_high), low(mean_low), scale(row_scale) {}
  __device__ Normalise(double mean, double row_scale)
      : high(static_cast<float>(mean)), low(static_cast<float>(mean - high)), scale(static_cast<float>(row_scale)) {}

  __device__ float operator()(float x) const {
    if constexpr (kCentred) return ((x - high) - low) * scale;
    return x * scale;
  }

  float high, low, scale;
};

/// Whether a sum of squares in floats is one to go by; else it is summed again in double.
__device__ __forceinline__ bool squares_fit(float squares) { return squares > 1e-25f && squares < 1e38f; }

/// Calls body.operator()<V, kPacks>(groups): rows held in registers, in packs of sixteen bytes or element by element,
/// or rows of any length read again for each pass.
template <class T, class Body>
void dispatch_row_parts(int64_t length, bool wide, Body body) {
  const RowGroups in_packs(length, kHeldWide), single(length, kHeldSingle);
  if (wide && in_packs.holds) return body.template operator()<kWide<T>, kHeldWide / kWide<T>>(in_packs);
  if (single.holds) return body.template operator()<1, kHeldSingle>(single);
  return body.template operator()<1, 0>(single);
}

}  // namespace monoid::cuda

#pragma once

#include <cstdint>

// Sums and other folds over the threads of a warp or block, in a fixed order: the same bits every time.

namespace monoid::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Largest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// The fold over the `kWidth` lanes of each part of a warp, in every lane. `combine` is commutative.
template <int kWidth = kWarp, class T, class Combine = Plus>
__device__ __forceinline__ T warp_reduce(T value, Combine combine = {}) {
#pragma unroll
  for (int distance = kWidth / 2; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

/// The fold over a block of kThreads (a multiple of 32, at most 1024), in every thread. Every thread must call it.
template <int kThreads, class T, class Combine = Plus>
__device__ __forceinline__ T block_reduce(T value, T empty, Combine combine = {}) {
  constexpr int kWarps = kThreads / kWarp;
  value = warp_reduce(value, combine);
  if constexpr (kWarps == 1) return value;
  __shared__ T partial[kWarps];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();  // an earlier call may still be reading
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  return warp_reduce(lane < kWarps ? partial[lane] : empty, combine);
}

}  // namespace monoid::cuda

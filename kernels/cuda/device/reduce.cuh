#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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

/// The value of the lane at `lane ^ distance`, of any plain type of whole words.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int distance) {
  if constexpr (std::is_arithmetic_v<T>) {
    return __shfl_xor_sync(kAllLanes, value, distance);
  } else {
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &value, sizeof(T));
#pragma unroll
    for (uint32_t& word : words) word = __shfl_xor_sync(kAllLanes, word, distance);
    memcpy(&value, words, sizeof(T));
    return value;
  }
}

/// The fold over the `kWidth` lanes of each part of a warp, in every lane. `combine` is commutative.
template <int kWidth = kWarp, class T, class Combine = Plus>
__device__ __forceinline__ T warp_reduce(T value, Combine combine = {}) {
#pragma unroll
  for (int distance = kWidth / 2; distance > 0; distance /= 2) value = combine(value, shuffle_xor(value, distance));
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

/// The fold over each group of `width` neighbouring threads, a power of two that divides the block, in every thread.
/// Every thread of the block must call it. `partial` is shared memory for one value a warp.
template <class T, class Combine = Plus>
__device__ __forceinline__ T group_reduce(T value, int width, T* partial, Combine combine = {}) {
  for (int distance = min(width, kWarp) / 2; distance > 0; distance /= 2)
    value = combine(value, shuffle_xor(value, distance));
  if (width <= kWarp) return value;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = width / kWarp;
  __syncthreads();  // an earlier call may still be reading
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  value = partial[warp / warps * warps + lane % warps];
  for (int distance = warps / 2; distance > 0; distance /= 2) value = combine(value, shuffle_xor(value, distance));
  return value;
}

}  // namespace monoid::cuda

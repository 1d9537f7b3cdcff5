#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "monoid/core/dtype.h"

// Elements in and out of memory, sixteen bytes at a time where addresses allow, computed in f32.

namespace monoid::cuda {

/// N elements that one instruction loads or stores.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T lanes[N];
};

/// Elements of T in sixteen bytes.
template <class T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bfloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

template <class T>
__device__ __forceinline__ T narrow(float x);
template <>
__device__ __forceinline__ float narrow<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bfloat16 narrow<bfloat16>(float x) {
  bfloat16 result;
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
  return result;
}

/// Two of them side by side, the first in the low half: one instruction.
__device__ __forceinline__ uint32_t narrow_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16 | __bfloat16_as_ushort(pair.x);
}

/// What an element of any type is once it is in a register, and the way there and back.
template <class T>
using Register = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

template <class T>
__device__ __forceinline__ Register<T> to_register(T x) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return widen(x);
  } else {
    return x;
  }
}
template <class T>
__device__ __forceinline__ T from_register(Register<T> x) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return narrow<bfloat16>(x);
  } else {
    return x;
  }
}

/// N elements kept as they lie in memory: two bf16 a register, widened where they are used.
template <class T, int N>
struct alignas(sizeof(T) * N) Raw {
  static constexpr bool kPaired = sizeof(T) == 2 && N % 2 == 0;
  using Word = std::conditional_t<kPaired || sizeof(T) == 4, uint32_t, uint16_t>;

  Raw() = default;
  __device__ __forceinline__ explicit Raw(const float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N / kLanes; ++i) {
      if constexpr (kPaired)
        words[i] = narrow_pair(x[2 * i], x[2 * i + 1]);
      else if constexpr (sizeof(T) == 4)
        words[i] = __float_as_uint(x[i]);
      else
        words[i] = narrow<T>(x[i]).bits;
    }
  }
  __device__ __forceinline__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
    if constexpr (!kPaired) return __uint_as_float(static_cast<uint32_t>(words[i]) << 16);
    return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
  }

  static constexpr int kLanes = kPaired ? 2 : 1;
  Word words[N / kLanes];
};

template <int N, class T>
__device__ __forceinline__ Raw<T, N> load_raw(const T* from) {
  return *reinterpret_cast<const Raw<T, N>*>(from);
}
template <int N, class T>
__device__ __forceinline__ void store_raw(T* to, const Raw<T, N>& x) {
  *reinterpret_cast<Raw<T, N>*>(to) = x;
}

/// N elements as floats; addresses are aligned to the whole pack.
template <int N, class T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  const Raw<T, N> raw = load_raw<N>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = raw[i];
}
template <int N, class T>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
  store_raw(to, Raw<T, N>(from));
}

/// True where `address` and a stride of elements keep packs of N aligned.
template <int N, class T>
__host__ __device__ inline bool aligned_for(const T* address, int64_t stride = 0) {
  return reinterpret_cast<uintptr_t>(address) % (sizeof(T) * N) == 0 && stride % N == 0;
}

}  // namespace monoid::cuda

#pragma once

#include <algorithm>
#include <type_traits>

#include "monoid/kernels/cuda/device/async_copy.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"

// What the causal convolution and its gradient share.

namespace monoid::cuda {

/// The rows of a [batch, time, channel] tensor; an undefined one has none.
template <class T>
struct TimeRows {
  template <class Base>
  explicit TimeRows(Base& x) : data(address_of<std::remove_const_t<T>>(x)) {
    if (!data) return;
    batch_step = x.strides()[0];
    time_step = x.strides()[1];
  }
  __host__ __device__ explicit operator bool() const { return data; }
  __device__ T* at(int64_t batch, int64_t time, int64_t channel) const {
    return data + batch * batch_step + time * time_step + channel;
  }

  T* data;
  int64_t batch_step = 0, time_step = 0;
};

template <class T>
bool in_packs(const TimeRows<T>& rows, int64_t channels) {
  constexpr int kV = kWide<std::remove_const_t<T>>;
  return aligned_for<kV>(rows.data, rows.batch_step) && rows.time_step % kV == 0 && channels % kV == 0;
}

/// weight [channel, tap], of any strides.
template <class T>
struct Taps {
  explicit Taps(const Tensor& weight)
      : data(weight.data<T>()),
        count(weight.size(1)),
        channel_step(weight.strides()[0]),
        tap_step(weight.strides()[1]),
        dense(weight.is_contiguous() && aligned_for<kWide<T>>(data)) {}

  __device__ float at(int64_t channel, int64_t tap) const {
    return widen(data[channel * channel_step + tap * tap_step]);
  }
  /// Those of V channels.
  template <int V, int kTaps>
  __device__ void load(int64_t channel, float (&w)[kTaps][V]) const {
    if (dense) {
      float values[kTaps][V];
#pragma unroll
      for (int j = 0; j < kTaps; ++j) cuda::load(data + channel * kTaps + j * V, values[j]);
#pragma unroll
      for (int i = 0; i < V * kTaps; ++i) w[i % kTaps][i / kTaps] = values[i / V][i % V];
      return;
    }
#pragma unroll
    for (int i = 0; i < V * kTaps; ++i) w[i % kTaps][i / kTaps] = at(channel + i / kTaps, i % kTaps);
  }

  const T* data;
  int64_t count, channel_step, tap_step;
  bool dense;
};

/// Calls body.operator()<V, kTaps>(): packs of sixteen bytes for the usual kernels, else single channels and any
/// number of taps, kTaps = 0. From five taps on packs are half as wide, for their weights fill the registers.
template <class T, class Body>
void dispatch_taps(bool wide, int64_t taps, Body body) {
  constexpr int kV = kWide<T>;
  if (wide && taps == 2) return body.template operator()<kV, 2>();
  if (wide && taps == 3) return body.template operator()<kV, 3>();
  if (wide && taps == 4) return body.template operator()<kV, 4>();
  if (wide && taps == 5) return body.template operator()<kV / 2, 5>();
  if (wide && taps == 6) return body.template operator()<kV / 2, 6>();
  if (wide && taps == 7) return body.template operator()<kV / 2, 7>();
  if (wide && taps == 8) return body.template operator()<kV / 2, 8>();
  return body.template operator()<1, 0>();
}

inline constexpr int kLeastSteps = 8;  // of a slice: shorter ones would read much of their neighbours

/// Starts to copy a pack into shared memory, or zeros where there is nothing to copy.
template <class T, int V>
__device__ __forceinline__ void copy_async_pack(Raw<T, V>* shared, const T* global, bool exists) {
  if constexpr (sizeof(*shared) == 16) {
    copy_async(shared, global, exists);
  } else {
    static_assert(sizeof(*shared) == 8);
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
        "l"(global), "r"(exists ? 8 : 0)
        : "memory");
  }
}

/// In how many slices of time `columns` are cut, so that the slices just fill `places` on the GPU; at most `most`.
inline int64_t slices_that_fill(int64_t places, int64_t columns, int64_t most) {
  return std::max<int64_t>(1, std::min(places / columns, most));
}

}  // namespace monoid::cuda

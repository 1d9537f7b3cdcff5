#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "monoid/core/tensor.h"
#include "monoid/kernels/broadcast.h"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/cuda/strided.h"

// The elementwise kernels: outputs[..] = function(inputs...), any strides, two instances for each function and dtype.
// Operands that are one dense run each have a kernel of their own, which is short: all loads of a thread start before
// the first is used, and few registers leave room for many threads. For the others a thread computes one or two packs
// of elements. Where the merged inner axis is dense (or repeats one element) in every operand and divides into packs,
// they move as packs of sixteen bytes, neighbouring threads on neighbouring packs: scalars, rows [channel], columns,
// slices of packed projections. Everything else goes element by element, neighbouring threads on neighbouring elements.
// Floor: every input read once, every output written once.

namespace monoid::cuda {

inline constexpr int kMapThreads = 128;
template <int kPack>
inline constexpr int kMapPacks =
    kPack >= 8 ? 1 : 2;  // a thread: more elements of bf16 cost more registers than they save

/// Elements of the packs in which all types of a launch move at once.
template <class... T>
inline constexpr int kMapPack = std::min({8, 16 / static_cast<int>(sizeof(T))...});

/// The result of a function of several outputs.
template <class T, int kCount>
struct Several {
  T values[kCount];
};

/// Where the outputs start; a null one is not wanted.
template <class Out, int kCount>
struct Outputs {
  Out* data[kCount];
};

/// An input and the elements of it that a thread holds.
template <class T, int kPack>
struct Operand {
  const T* data;
  Register<T> lanes[kMapPacks<kPack> * kPack];

  __device__ __forceinline__ void load_pack(int first, const T* from, int64_t step, uint32_t valid) {
    if (step == 0) {
      const auto value = to_register(*from);
#pragma unroll
      for (int i = 0; i < kPack; ++i) lanes[first + i] = value;
    } else if (valid >= kPack) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        const Raw<T, kPack> raw = load_raw<kPack>(from);
#pragma unroll
        for (int i = 0; i < kPack; ++i) lanes[first + i] = raw[i];
      } else {
        const auto pack = *reinterpret_cast<const Pack<T, kPack>*>(from);
#pragma unroll
        for (int i = 0; i < kPack; ++i) lanes[first + i] = pack.lanes[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (i < valid) lanes[first + i] = to_register(from[i]);
      }
    }
  }
};

template <int kPack, class Out>
__device__ __forceinline__ void store_pack(Out* to, const Register<Out>* lanes, uint32_t valid) {
  if (valid < kPack) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (i < valid) to[i] = from_register<Out>(lanes[i]);
    }
  } else if constexpr (std::is_same_v<Out, bfloat16>) {
    store(to, reinterpret_cast<const float(&)[kPack]>(*lanes));
  } else {
    Pack<Out, kPack> pack;
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack.lanes[i] = lanes[i];
    *reinterpret_cast<Pack<Out, kPack>*>(to) = pack;
  }
}

template <int kPack, class Out, int kOutputs, class Function, class... In, size_t... n>
__device__ __forceinline__ void map_elements(const Axes<1 + sizeof...(In)>& axes, uint32_t count, bool packed,
                                             const Function& function, const Outputs<Out, kOutputs>& out,
                                             std::index_sequence<n...>, Operand<In, kPack>... in) {
  constexpr int kOperands = 1 + sizeof...(In), kElements = kMapPacks<kPack> * kPack;
  const uint32_t begin = blockIdx.x * (kMapThreads * kElements);
  const auto pack_index = [&](int k) { return begin + (k * kMapThreads + threadIdx.x) * kPack; };
  const auto element_index = [&](int i) { return begin + i * kMapThreads + threadIdx.x; };
  int64_t at[kElements][kOperands];
  if (packed) {
#pragma unroll
    for (int k = 0; k < kMapPacks<kPack>; ++k) {
      const uint32_t index = pack_index(k);
      if (index >= count) break;
      axes.offsets(index, at[k]);
      (in.load_pack(k * kPack, in.data + at[k][1 + n], axes.inner_step(1 + n), count - index), ...);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const uint32_t index = element_index(i);
      if (index >= count) break;
      axes.offsets(index, at[i]);
      ((in.lanes[i] = to_register(in.data[at[i][1 + n]])), ...);
    }
  }
  Register<Out> results[kOutputs][kElements];
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    const Several<Register<Out>, kOutputs> result{function(in.lanes[i]...)};
#pragma unroll
    for (int k = 0; k < kOutputs; ++k) results[k][i] = result.values[k];
  }
#pragma unroll
  for (int output = 0; output < kOutputs; ++output) {
    if (!out.data[output]) continue;
    if (packed) {
#pragma unroll
      for (int k = 0; k < kMapPacks<kPack>; ++k) {
        const uint32_t index = pack_index(k);
        if (index < count) store_pack<kPack>(out.data[output] + at[k][0], results[output] + k * kPack, count - index);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        if (element_index(i) < count) out.data[output][at[i][0]] = from_register<Out>(results[output][i]);
      }
    }
  }
}

template <class Out, int kOutputs, class Function, class... In>
__global__ void __launch_bounds__(kMapThreads)
    map_kernel(const __grid_constant__ Axes<1 + sizeof...(In)> axes, uint32_t count, bool packed, Function function,
               Outputs<Out, kOutputs> out, const In*... in) {
  constexpr int kPack = kMapPack<Out, In...>;
  wait_for_previous();
  map_elements<kPack>(axes, count, packed, function, out, std::index_sequence_for<In...>(), Operand<In, kPack>{in}...);
}

/// A dense input and the packs of it that a thread holds, as they lie in memory.
template <class T, int kPack>
struct DenseOperand {
  static constexpr bool kRaw = std::is_same_v<T, bfloat16>;
  using Held = std::conditional_t<kRaw, Raw<T, kPack>, Pack<T, kPack>>;

  const T* data;
  Held packs[kMapPacks<kPack>];

  __device__ __forceinline__ void load_pack(int k, uint32_t index) {
    packs[k] = *reinterpret_cast<const Held*>(data + index);
  }
  __device__ __forceinline__ Register<T> lane(int k, int i) const {
    if constexpr (kRaw) {
      return packs[k][i];
    } else {
      return packs[k].lanes[i];
    }
  }
};

template <int kPack, class Out, int kOutputs, class Function, class... In>
__device__ __forceinline__ void map_dense(uint32_t count, const Function& function, const Outputs<Out, kOutputs>& out,
                                          DenseOperand<In, kPack>... in) {
  using Result = Several<Register<Out>, kOutputs>;
  const auto index_of = [](int k) { return ((blockIdx.x * kMapPacks<kPack> + k) * kMapThreads + threadIdx.x) * kPack; };
#pragma unroll
  for (int k = 0; k < kMapPacks<kPack>; ++k) {
    if (index_of(k) + kPack <= count) (in.load_pack(k, index_of(k)), ...);
  }
#pragma unroll
  for (int k = 0; k < kMapPacks<kPack>; ++k) {
    const uint32_t index = index_of(k);
    if (index + kPack <= count) {
      Register<Out> results[kOutputs][kPack];
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const Result result{function(in.lane(k, i)...)};
#pragma unroll
        for (int o = 0; o < kOutputs; ++o) results[o][i] = result.values[o];
      }
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
        if (out.data[o]) store_pack<kPack>(out.data[o] + index, results[o], kPack);
      }
    } else {
#pragma unroll 1
      for (uint32_t i = index; i < count; ++i) {
        const Result result{function(to_register(in.data[i])...)};
#pragma unroll
        for (int o = 0; o < kOutputs; ++o) {
          if (out.data[o]) out.data[o][i] = from_register<Out>(result.values[o]);
        }
      }
    }
  }
}

template <class Out, int kOutputs, class Function, class... In>
__global__ void __launch_bounds__(kMapThreads)
    dense_map_kernel(uint32_t count, Function function, Outputs<Out, kOutputs> out, const In*... in) {
  constexpr int kPack = kMapPack<Out, In...>;
  wait_for_previous();
  map_dense<kPack>(count, function, out, DenseOperand<In, kPack>{in}...);
}

/// Whether packs of kPack elements from an address stay aligned over all axes.
template <int kPack, int N, class T>
bool moves_in_packs(const Axes<N>& axes, int operand, const T* address) {
  const int64_t inner = axes.inner_step(operand);
  if (inner == 0) return true;
  return inner == 1 && aligned_for<kPack>(address) && axes.steps_divide(operand, axes.rank - 1, kPack);
}

template <class Out, int kOutputs, class Function, class... In, size_t... n>
void launch_map(const Launch& launch, Axes<1 + sizeof...(In)> axes, Function function, Outputs<Out, kOutputs> out,
                std::index_sequence<n...> order, const In*... in) {
  const int64_t count = axes.count();
  if (count > kMostIndices) {
    // In slices of the first axis, each of which counts in 31 bits.
    const int64_t slice = std::max<int64_t>(1, kMostIndices / (count / axes.extents[0]));
    for (int64_t first = 0; first < axes.extents[0]; first += slice) {
      const auto part = axes.part(std::min(slice, axes.extents[0] - first));
      Outputs<Out, kOutputs> to = out;
      for (Out*& data : to.data) data = data ? data + first * axes.steps[0][0] : nullptr;
      launch_map(launch, part, function, to, order, (in + first * axes.steps[0][1 + n])...);
    }
    return;
  }
  constexpr int kPack = kMapPack<Out, In...>;
  bool packed = (axes.rank <= 1 || axes.inner_extent() % kPack == 0) && axes.inner_step(0) == 1;
  for (const Out* data : out.data) packed = packed && moves_in_packs<kPack>(axes, 0, data);
  packed = packed && (moves_in_packs<kPack>(axes, 1 + n, in) && ...);
  const auto blocks = static_cast<unsigned>(blocks_for(count, kMapThreads * kMapPacks<kPack> * kPack));
  const bool dense = packed && axes.rank <= 1 && ((axes.inner_step(1 + n) == 1) && ...);
  if (dense) {
    launch.overlapped(dense_map_kernel<Out, kOutputs, Function, In...>, blocks, kMapThreads,
                      static_cast<uint32_t>(count), function, out, in...);
  } else {
    launch.overlapped(map_kernel<Out, kOutputs, Function, In...>, blocks, kMapThreads, axes,
                      static_cast<uint32_t>(count), packed, function, out, in...);
  }
}

/// outputs[..] = function(in[..]...) for every element of `shape`, along which all outputs have the same strides;
/// inputs are broadcast to it.
template <class... In, class Function, class Out, int kOutputs, class... Inputs>
void map_onto(const Launch& launch, Function function, const Shape& shape, const Strides& strides,
              Outputs<Out, kOutputs> out, const Inputs&... in) {
  static_assert(sizeof...(In) == sizeof...(Inputs));
  launch_map(launch, axes_in_memory_order<1 + sizeof...(In)>(shape, {strides, broadcast_strides(in, shape)...}),
             function, out, std::index_sequence_for<In...>(), static_cast<const In*>(in.raw())...);
}

/// The same for one output.
template <class Out, class... In, class Function, class... Inputs>
void map(std::string_view op, Function function, Tensor& out, const Inputs&... in) {
  map_onto<In...>(Launch(op, out), function, out.shape(), out.strides(),
                  Outputs<Out, 1>{{static_cast<Out*>(out.raw())}}, in...);
}

}  // namespace monoid::cuda

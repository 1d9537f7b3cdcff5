// Gradient of the depthwise causal convolution. With e the tail followed by x, at time u >= -(taps - 1):
//   de[u] = sum_i w[taps - 1 - i] dy[u + i],   dw[taps - 1 - i] = sum_u e[u] dy[u + i],   dbias = sum_u dy[u],
// so one window over dy serves both, and e is read once. Floor: x and dy read, dx written, 3 units. Threads own a pack
// of channels and a slice of time, as forward; the sums of a block's four slices become one row of partial sums.

#include "monoid/kernels/conv.h"

#include "monoid/kernels/cuda/device/conv.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/partials.h"

namespace monoid::cuda {
namespace {

constexpr int kSlices = 4;                             // warps of a block
constexpr int kThreads = kSlices * kWarp, kAhead = 8;  // steps that a thread fetches ahead

template <class T>
struct Backward {
  TimeRows<const T> dy, dfinal, x, tail;
  TimeRows<T> dx, dtail;
  Taps<T> weight;
  float* partials;  // [batch, tile of time; taps and bias; channels], or nullptr
  int64_t batch, time, channels, first_time, tiles, steps;

  // The rows of e, of its gradient and of that of the final tail, whose end is the end of e; nullptr outside.
  __device__ const T* input(int64_t b, int64_t u, int64_t channel) const {
    if (u >= 0) return x.at(b, u, channel);
    return tail ? tail.at(b, u + weight.count - 1, channel) : nullptr;
  }
  __device__ T* gradient(int64_t b, int64_t u, int64_t channel) const {
    if (u >= 0) return dx ? dx.at(b, u, channel) : nullptr;
    return dtail ? dtail.at(b, u + weight.count - 1, channel) : nullptr;
  }
  __device__ const T* final_gradient(int64_t b, int64_t u, int64_t channel) const {
    const int64_t place = u + weight.count - 1 - time;
    return dfinal && place >= 0 ? dfinal.at(b, place, channel) : nullptr;
  }
  __device__ const T* cotangent(int64_t b, int64_t t, int64_t channel) const {
    return t >= 0 && t < time ? dy.at(b, t, channel) : nullptr;
  }
};

// The sums of one parameter over the slices of a block, in their order.
template <int V>
__device__ void leave(const float (&sums)[V], float* partial, bool exists) {
  __shared__ float stage[kSlices][V][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, slice = static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < V; ++i) stage[slice][i][lane] = sums[i];
  __syncthreads();
  if (slice > 0 || !exists) return;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    float total = stage[0][i][lane];
    for (int s = 1; s < kSlices; ++s) total += stage[s][i][lane];
    partial[i] = total;
  }
}

template <class T, int V, int kTaps>
__global__ void __launch_bounds__(kThreads, 3) backward(const __grid_constant__ Backward<T> in) {
  const int64_t widths = (in.channels + V * kWarp - 1) / (V * kWarp), block = blockIdx.x / widths;
  const int64_t batch = block / in.tiles, tile = block % in.tiles;
  const int64_t channel = (blockIdx.x % widths * kWarp + threadIdx.x % kWarp) * V;
  const bool exists = channel < in.channels;
  const int64_t begin = in.first_time + (tile * kSlices + threadIdx.x / kWarp) * in.steps;
  const int64_t end = exists ? min(in.time, begin + in.steps) : begin;
  const int64_t taps = kTaps > 0 ? kTaps : in.weight.count;
  float* const partial = in.partials ? in.partials + block * (taps + 1) * in.channels + channel : nullptr;
  float dbias[V] = {};

  if constexpr (kTaps == 0) {
    for (int64_t u = begin; u < end; ++u) {
      if (const T* dy = in.cotangent(batch, u, channel)) dbias[0] += widen(*dy);
      T* const to = in.gradient(batch, u, channel);
      if (!to) continue;
      const T* const final_gradient = in.final_gradient(batch, u, channel);
      float sum = final_gradient ? widen(*final_gradient) : 0;
      for (int64_t i = 0; i < taps; ++i) {
        const T* const dy = in.cotangent(batch, u + i, channel);
        if (dy) sum += in.weight.at(channel, taps - 1 - i) * widen(*dy);
      }
      *to = narrow<T>(sum);
    }
    if (!partial) return;
    for (int64_t i = 0; i < taps; ++i) {
      float sum[1] = {};
      for (int64_t u = begin; u < end; ++u) {
        const T *const e = in.input(batch, u, channel), *const dy = in.cotangent(batch, u + i, channel);
        if (e && dy) sum[0] += widen(*e) * widen(*dy);
      }
      leave(sum, partial + (taps - 1 - i) * in.channels, exists);
    }
  } else {
    constexpr int kAfter = kTaps - 1;
    extern __shared__ __align__(16) unsigned char shared[];
    auto* const ring = reinterpret_cast<Raw<T, V>*>(shared) + threadIdx.x;
    const auto fetch = [&](int64_t u) {
      const auto place = (u - begin) % kAhead * 2 * kThreads;
      const T *const dy = in.cotangent(batch, u + kAfter, channel), *const e = in.input(batch, u, channel);
      copy_async_pack<T, V>(ring + place, dy ? dy : in.dy.data, dy);
      copy_async_pack<T, V>(ring + place + kThreads, e ? e : in.dy.data, e);
      commit_copies();
    };
    float w[kTaps][V] = {}, dw[kTaps][V] = {}, dy[kTaps][V];
    if (exists) in.weight.load(channel, w);
#pragma unroll
    for (int j = 0; j < kAfter; ++j) {
      const T* const from = exists ? in.cotangent(batch, begin + j, channel) : nullptr;
      const Raw<T, V> row = from ? load_raw<V>(from) : Raw<T, V>{};
#pragma unroll
      for (int i = 0; i < V; ++i) dy[j][i] = row[i];
    }
    for (int64_t u = begin; u < min(end, begin + kAhead); ++u) fetch(u);
    for (int64_t u = end; u < begin + kAhead; ++u) commit_copies();
    for (int64_t u = begin; u < end; ++u) {
      wait_for_copies<kAhead - 1>();
      const auto place = (u - begin) % kAhead * 2 * kThreads;
      const Raw<T, V> last = ring[place], e = ring[place + kThreads];
      if (u + kAhead < end)
        fetch(u + kAhead);
      else
        commit_copies();
      float sum[V] = {};
      if (const T* const from = in.final_gradient(batch, u, channel)) load(from, sum);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float input = e[i];
        dy[kAfter][i] = last[i];
        dbias[i] += dy[0][i];
#pragma unroll
        for (int j = 0; j < kTaps; ++j) {
          sum[i] += w[kAfter - j][i] * dy[j][i];
          dw[kAfter - j][i] += input * dy[j][i];
        }
#pragma unroll
        for (int j = 0; j < kAfter; ++j) dy[j][i] = dy[j + 1][i];
      }
      if (T* const to = in.gradient(batch, u, channel)) store(to, sum);
    }
    if (!partial) return;
#pragma unroll
    for (int j = 0; j < kTaps; ++j) leave(dw[j], partial + j * in.channels, exists);
  }
  leave(dbias, partial + taps * in.channels, exists);
}

}  // namespace

void causal_conv_gradient(const Tensor& dy, const Tensor& dfinal, const Tensor& x, const Tensor& weight,
                          const Tensor& tail, Tensor& dx, Tensor& dtail, Tensor& dweight, Tensor& dbias) {
  const Launch launch("causal_depthwise_conv1d", dy);
  const int64_t batch = dy.size(0), time = dy.size(1), channels = dy.size(2), taps = weight.size(1);
  if (channels == 0) return;
  dispatch_storage("causal_depthwise_conv1d", dy.dtype(), [&]<class T>() {
    Backward<T> in{.dy = TimeRows<const T>(dy),
                   .dfinal = TimeRows<const T>(dfinal),
                   .x = TimeRows<const T>(x),
                   .tail = TimeRows<const T>(tail),
                   .dx = TimeRows<T>(dx),
                   .dtail = TimeRows<T>(dtail),
                   .weight = Taps<T>(weight),
                   .partials = nullptr,
                   .batch = batch,
                   .time = time,
                   .channels = channels,
                   .first_time = tail.defined() || dtail.defined() ? 1 - taps : 0,
                   .tiles = 1,
                   .steps = 1};
    const auto fits = [&](const auto&... rows) { return (in_packs(rows, channels) && ...); };
    const bool wide = fits(in.dy, in.dfinal, in.x, in.tail) && fits(in.dx, in.dtail);
    dispatch_taps<T>(wide, taps, [&]<int V, int kTaps>() {
      const auto kernel = backward<T, V, kTaps>;
      const size_t shared_bytes = kTaps == 0 ? 0 : 2 * kAhead * kThreads * sizeof(Raw<T, V>);
      const int resident =
          launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), kThreads, shared_bytes);
      const int64_t columns = batch * blocks_for(channels, V * kWarp), times = time - in.first_time;
      in.tiles = columns == 0 ? 1
                              : slices_that_fill(int64_t{resident} * launch.device().multiprocessors, columns,
                                                 blocks_for(times, kSlices * kLeastSteps));
      in.steps = blocks_for(times, in.tiles * kSlices);
      Tensor partials;
      if (dweight.defined() || dbias.defined()) {
        partials = Tensor::empty({batch * in.tiles, taps + 1, channels}, DType::f32, dy.device());
        in.partials = partials.data<float>();
      }
      launch.with_shared(kernel, static_cast<unsigned>(columns * in.tiles), kThreads, shared_bytes, in);
      if (partials.defined()) add_partials(launch, partials, dweight, dbias);
    });
  });
}

}  // namespace monoid::cuda

// Depthwise causal convolution, y[t] = bias + sum_j w[j] e[t + j] with e the tail followed by x. Floor: x read, y
// written, 2 units. Channels are contiguous, so no shared memory is needed: a thread owns a pack of channels and walks
// a slice of time with the last inputs in registers. Only the inputs before a slice are read twice, from the cache, and
// there are just as many slices as fill the GPU once.

#include "monoid/kernels/conv.h"

#include "monoid/kernels/cuda/device/conv.cuh"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 128, kRows = 8;  // rows in flight of a thread

template <class T>
struct Forward {
  TimeRows<const T> x, tail;
  Taps<T> weight;
  const T* bias;
  T* y;
  int64_t batch, time, channels, slices, steps;
};

template <class T, int V, int kTaps>
__global__ void __launch_bounds__(kThreads, 4) forward(const __grid_constant__ Forward<T> in) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x, packs = in.channels / V;
  const int64_t channel = thread % packs * V, slice = thread / packs % in.slices, batch = thread / packs / in.slices;
  const int64_t begin = slice * in.steps, end = min(in.time, begin + in.steps);
  if (batch >= in.batch) return;
  float bias[V] = {};
  if (in.bias) load(in.bias + channel, bias);
  T* const y = in.y + batch * in.time * in.channels + channel;

  if constexpr (kTaps == 0) {
    const int64_t before = in.weight.count - 1;
    for (int64_t t = begin; t < end; ++t) {
      float sum = bias[0];
      for (int64_t j = 0; j <= before; ++j) {
        const int64_t from = t - before + j;
        if (from < 0 && !in.tail) continue;
        const T* const input = from < 0 ? in.tail.at(batch, from + before, channel) : in.x.at(batch, from, channel);
        sum += in.weight.at(channel, j) * widen(*input);
      }
      y[t * in.channels] = narrow<T>(sum);
    }
  } else {
    constexpr int kBefore = kTaps - 1;
    float w[kTaps][V];
    in.weight.load(channel, w);
    Raw<T, V> rows[kBefore + kRows];
#pragma unroll
    for (int i = 0; i < kBefore; ++i) {
      const int64_t from = begin - kBefore + i;
      rows[i] = from >= 0 ? load_raw<V>(in.x.at(batch, from, channel))
                : in.tail ? load_raw<V>(in.tail.at(batch, from + kBefore, channel))
                          : Raw<T, V>{};
    }
    for (int64_t t = begin; t < end; t += kRows) {
      const T* const x = in.x.at(batch, t, channel);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (t + r < end) rows[kBefore + r] = load_raw<V>(x + r * in.x.time_step);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
          sum[i] = bias[i];
#pragma unroll
          for (int j = 0; j < kTaps; ++j) sum[i] += w[j][i] * rows[r + j][i];
        }
        if (t + r < end) store(y + (t + r) * in.channels, sum);
      }
#pragma unroll
      for (int i = 0; i < kBefore; ++i) rows[i] = rows[kRows + i];
    }
  }
}

}  // namespace

void causal_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& tail, Tensor& y) {
  if (y.elements() == 0) return;
  const Launch launch("causal_depthwise_conv1d", x);
  dispatch_storage("causal_depthwise_conv1d", x.dtype(), [&]<class T>() {
    Forward<T> in{.x = TimeRows<const T>(x),
                  .tail = TimeRows<const T>(tail),
                  .weight = Taps<T>(weight),
                  .bias = address_of<T>(bias),
                  .y = y.data<T>(),
                  .batch = x.size(0),
                  .time = x.size(1),
                  .channels = x.size(2),
                  .slices = 1,
                  .steps = 1};
    const bool wide = in_packs(in.x, in.channels) && in_packs(in.tail, in.channels) && aligned_for<kWide<T>>(in.y) &&
                      aligned_for<kWide<T>>(in.bias);
    dispatch_taps<T>(wide, weight.size(1), [&]<int V, int kTaps>() {
      const auto kernel = forward<T, V, kTaps>;
      const int resident = launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), kThreads, 0);
      const int64_t columns = in.batch * (in.channels / V);
      in.slices = slices_that_fill(int64_t{resident} * launch.device().multiprocessors * kThreads, columns,
                                   blocks_for(in.time, kLeastSteps));
      in.steps = blocks_for(in.time, in.slices);
      launch(kernel, static_cast<unsigned>(blocks_for(columns * in.slices, kThreads)), kThreads, in);
    });
  });
}

}  // namespace monoid::cuda

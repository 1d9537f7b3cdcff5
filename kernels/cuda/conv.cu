// Depthwise causal convolution, y[t] = bias + sum_j w[j] e[t + j] with e the tail followed by x. Floor: x read, y
// written, 2 units. Channels are contiguous, so no shared memory is needed: a thread owns a pack of channels and walks
// a slice of time with the last inputs in registers. Only the inputs before a slice are read twice, from the cache, and
// there are just as many slices as fill the GPU once.

#include "monoid/kernels/conv.h"

#include "monoid/kernels/cuda/device/conv.cuh"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 128, kAhead = 8;  // steps that a thread fetches ahead

template <class T>
struct Forward {
  TimeRows<const T> x, tail;
  Taps<T> weight;
  const T* bias;
  T* y;
  int64_t batch, time, channels, slices, steps;
};

template <class T, int V, int kTaps>
__global__ void __launch_bounds__(kThreads) forward(const __grid_constant__ Forward<T> in) {
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
    extern __shared__ __align__(16) unsigned char shared[];
    auto* const ring = reinterpret_cast<Raw<T, V>*>(shared) + threadIdx.x;
    const auto fetch = [&](int64_t from) {
      const bool is_x = from >= 0;
      const T* const input = is_x ? in.x.at(batch, from, channel) : in.tail.at(batch, from + kBefore, channel);
      copy_async(ring + (from + kBefore - begin) % kAhead * kThreads, input, from < end && (is_x || in.tail));
      commit_copies();
    };
    float w[kTaps][V], sums[kTaps][V] = {};  // sums[i] will be the output i + 1 steps from now; the last one starts
    in.weight.load(channel, w);
    for (int64_t from = begin - kBefore; from < begin - kBefore + kAhead; ++from) fetch(from);
    for (int64_t t = begin - kBefore; t < end; ++t) {
      wait_for_copies<kAhead - 1>();
      const Raw<T, V> x = ring[(t + kBefore - begin) % kAhead * kThreads];
      fetch(t + kAhead);
      float output[V];
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float input = x[i];
        output[i] = sums[0][i] + w[kBefore][i] * input;
#pragma unroll
        for (int j = 1; j < kTaps; ++j)
          sums[j - 1][i] = (j == kBefore ? bias[i] : sums[j][i]) + w[kBefore - j][i] * input;
      }
      if (t >= begin) store(y + t * in.channels, output);
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
      const size_t shared_bytes = kTaps == 0 ? 0 : kAhead * kThreads * sizeof(Raw<T, V>);
      const int resident =
          launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), kThreads, shared_bytes);
      const int64_t columns = in.batch * (in.channels / V);
      in.slices = slices_that_fill(int64_t{resident} * launch.device().multiprocessors * kThreads, columns,
                                   blocks_for(in.time, kLeastSteps));
      in.steps = blocks_for(in.time, in.slices);
      launch.with_shared(kernel, static_cast<unsigned>(blocks_for(columns * in.slices, kThreads)), kThreads,
                         shared_bytes, in);
    });
  });
}

}  // namespace monoid::cuda

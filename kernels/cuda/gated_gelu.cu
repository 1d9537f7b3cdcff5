// value * gelu(gate) and its gradient. A thread makes one pack of a row, so that enough loads are on their way at once.
// Floor: x (and dy) read once, the result written once.

#include "monoid/kernels/gated_gelu.h"

#include "monoid/kernels/cuda/device/math.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/rows.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/functions.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Gated {
  const T *x, *dy;
  T* out;
  int64_t channels, packs, all;  // of a row, in a row, in all rows
};

template <class T, int kPack, bool kGradient>
__global__ void __launch_bounds__(kThreads) gate_rows(const __grid_constant__ Gated<T> in) {
  using Math = MathFor<T>;
  struct None {};
  wait_for_previous();
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= in.all) return;
  const int64_t row = pack / in.packs, column = (pack - row * in.packs) * kPack;
  const int64_t single = row * in.channels + column, packed = single + row * in.channels;
  float value[kPack], gate[kPack];
  load(in.x + packed, value);
  load(in.x + packed + in.channels, gate);
  if constexpr (kGradient) {
    float dy[kPack], dvalue[kPack], dgate[kPack];
    load(in.dy + single, dy);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      dvalue[i] = dy[i] * functions::Gelu::value(Math(), gate[i], None());
      dgate[i] = functions::Gelu::gradient(Math(), dy[i] * value[i], gate[i], None());
    }
    store(in.out + packed, dvalue);
    store(in.out + packed + in.channels, dgate);
  } else {
    float results[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) results[i] = value[i] * functions::Gelu::value(Math(), gate[i], None());
    store(in.out + single, results);
  }
}

template <class T, bool kGradient>
void gate(const char* op, const Tensor& x, const Tensor& dy, Tensor& out) {
  const Launch launch(op, x);
  const int64_t channels = row_length(x) / 2;
  Gated<T> in{x.data<T>(), dy.defined() ? dy.data<T>() : nullptr, out.data<T>(), channels, 0, 0};
  const auto queue = [&]<int kPack>() {
    in.packs = channels / kPack;
    in.all = in.packs * row_count(x);
    launch.overlapped(gate_rows<T, kPack, kGradient>, dim3(static_cast<unsigned>(blocks_for(in.all, kThreads))),
                      kThreads, in);
  };
  const auto fits = [](const T* address) { return aligned_for<kWide<T>>(address); };
  const bool wide = channels % kWide<T> == 0 && fits(in.x) && fits(in.dy) && fits(in.out);
  wide ? queue.template operator()<kWide<T>>() : queue.template operator()<1>();
}

}  // namespace

void gated_gelu(const Tensor& x, Tensor& y) {
  if (y.elements() == 0) return;
  dispatch_storage("gated_gelu", x.dtype(), [&]<class T>() { gate<T, false>("gated_gelu", x, {}, y); });
}

void gated_gelu_gradient(const Tensor& x, const Tensor& dy, Tensor& dx) {
  if (dx.elements() == 0) return;
  dispatch_storage("gated_gelu_gradient", x.dtype(),
                   [&]<class T>() { gate<T, true>("gated_gelu_gradient", x, dy, dx); });
}

}  // namespace monoid::cuda

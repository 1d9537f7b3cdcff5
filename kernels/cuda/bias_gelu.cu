// y = gelu(x + bias), and its gradient with the sums over the rows that are the bias's. A thread owns a pack of
// columns, whose bias it keeps, and walks down the rows; the next one is on its way while this one is computed. Threads
// that own the same columns are added up in their order, then blocks. Floor: x (and dy) read, one tensor written.

#include "monoid/kernels/bias_gelu.h"

#include <algorithm>
#include <bit>

#include "monoid/kernels/cuda/device/math.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/rows.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/partials.h"
#include "monoid/kernels/functions.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256, kBlocks = 4;  // of a multiprocessor, which leaves 64 registers a thread

template <class T>
struct Walk {
  const T *x, *bias, *dy;
  T* out;
  float* partials;  // [gridDim.x, columns], or none
  int64_t rows, columns;
  int width = 0;  // threads side by side: a power of 2
};

template <class T, int kPack, bool kGradient>
__global__ void __launch_bounds__(kThreads, kBlocks) walk_rows(const __grid_constant__ Walk<T> in) {
  using Math = MathFor<T>;
  struct None {};
  constexpr int kInputs = kGradient ? 2 : 1;
  wait_for_previous();
  const int across = static_cast<int>(threadIdx.x) & (in.width - 1), down = static_cast<int>(threadIdx.x) / in.width;
  const int height = kThreads / in.width;
  const int64_t column = (int64_t{blockIdx.y} * in.width + across) * kPack;
  float bias[kPack] = {}, sums[kPack] = {};
  if (column < in.columns) {
    if (in.bias) load(in.bias + column, bias);
    const int64_t step = int64_t{gridDim.x} * height, stride = step * in.columns;
    int64_t row = int64_t{blockIdx.x} * height + down, at = row * in.columns + column;
    Raw<T, kPack> next[kInputs];
    const auto fetch = [&](int64_t from) {
      next[0] = load_raw<kPack>(in.x + from);
      if constexpr (kGradient) next[1] = load_raw<kPack>(in.dy + from);
    };
    if (row < in.rows) fetch(at);
    for (; row < in.rows; row += step, at += stride) {
      Raw<T, kPack> now[kInputs];
#pragma unroll
      for (int i = 0; i < kInputs; ++i) now[i] = next[i];
      if (row + step < in.rows) fetch(at + stride);
      float results[kPack];
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const float x = now[0][i] + bias[i];
        if constexpr (kGradient) {
          results[i] = functions::Gelu::gradient(Math(), now[1][i], x, None());
          sums[i] += results[i];
        } else {
          results[i] = functions::Gelu::value(Math(), x, None());
        }
      }
      store(in.out + at, results);
    }
  }
  if constexpr (kGradient) {
    if (!in.partials) return;
    __shared__ float folded[kPack][kThreads];
#pragma unroll
    for (int i = 0; i < kPack; ++i) folded[i][threadIdx.x] = sums[i];
    __syncthreads();
    for (int i = down; i < kPack; i += height) {
      float total = 0;
      for (int place = across; place < kThreads; place += in.width) total += folded[i][place];
      if (column < in.columns) in.partials[int64_t{blockIdx.x} * in.columns + column + i] = total;
    }
  }
}

template <class T, bool kGradient>
void walk(const char* op, const Tensor& x, const Tensor& bias, const Tensor& dy, Tensor& out, Tensor& dbias) {
  const Launch launch(op, x);
  Walk<T> in{x.data<T>(), address_of<T>(bias), address_of<T>(dy), out.data<T>(), nullptr, row_count(x), row_length(x)};
  const auto queue = [&]<int kPack>() {
    const int64_t packs = blocks_for(in.columns, kPack);
    in.width = static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(packs, 1, kThreads))));
    const int64_t tiles = blocks_for(packs, in.width), room = int64_t{kBlocks} * launch.device().multiprocessors;
    const int64_t blocks =
        std::clamp<int64_t>(blocks_for(in.rows, kThreads / in.width), 1, std::max<int64_t>(1, room / tiles));
    Tensor partials;
    if (dbias.defined()) {
      partials = Tensor::empty(Shape{blocks, 1, row_length(x)}, DType::f32, x.device());
      in.partials = partials.data<float>();
    }
    launch.overlapped(walk_rows<T, kPack, kGradient>, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles)),
                      kThreads, in);
    Tensor no_weight;
    if (dbias.defined()) add_partials(launch, partials, no_weight, dbias);
  };
  const auto fits = [](const T* address) { return aligned_for<kWide<T>>(address); };
  const bool wide = in.columns % kWide<T> == 0 && fits(in.x) && fits(in.bias) && fits(in.dy) && fits(in.out);
  wide ? queue.template operator()<kWide<T>>() : queue.template operator()<1>();
}

}  // namespace

void bias_gelu(const Tensor& x, const Tensor& bias, Tensor& y) {
  if (x.elements() == 0) return;
  Tensor none;
  dispatch_storage("bias_gelu", x.dtype(), [&]<class T>() { walk<T, false>("bias_gelu", x, bias, {}, y, none); });
}

void bias_gelu_gradient(const Tensor& x, const Tensor& bias, const Tensor& dy, Tensor& dx, Tensor& dbias) {
  if (row_length(x) == 0) return;
  dispatch_storage("bias_gelu_gradient", x.dtype(),
                   [&]<class T>() { walk<T, true>("bias_gelu_gradient", x, bias, dy, dx, dbias); });
}

}  // namespace monoid::cuda

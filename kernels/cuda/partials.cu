// A block sums 32 columns: each of its warps takes every 32nd partial row, then the first warp adds up the warps.

#include "monoid/kernels/cuda/partials.h"

#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"

namespace monoid::cuda {
namespace {

constexpr int kWarps = 32;

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) add_columns(const float* partials, int64_t count, int64_t columns,
                                                             int64_t channels, int64_t taps, T* dweight, T* dbias) {
  __shared__ double sums[kWarps][kWarp];
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  double sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t row = warp; row < count; row += kWarps) sum += static_cast<double>(partials[row * columns + column]);
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  double total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += sums[i][lane];
  const int64_t tap = column / channels, channel = column % channels;
  T* const to = tap < taps ? dweight : dbias;
  if (to) to[tap < taps ? channel * taps + tap : channel] = narrow<T>(static_cast<float>(total));
}

}  // namespace

void add_partials(const Launch& launch, const Tensor& partials, Tensor& dweight, Tensor& dbias) {
  const Tensor& wanted = dweight.defined() ? dweight : dbias;
  if (!wanted.defined()) return;
  dispatch_storage("add_partials", wanted.dtype(), [&]<class T>() {
    const int64_t channels = partials.size(2), columns = partials.size(1) * channels;
    const int64_t taps = dweight.defined() && channels > 0 ? dweight.elements() / channels : partials.size(1) - 1;
    launch.overlapped(add_columns<T>, static_cast<unsigned>(blocks_for(columns, kWarp)), kWarps * kWarp,
                      partials.data<float>(), partials.size(0), columns, channels, taps, address_of<T>(dweight),
                      address_of<T>(dbias));
  });
}

}  // namespace monoid::cuda

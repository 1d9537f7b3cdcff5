// Dropout: numbers first .. first + n of a Philox stream, the same on every device, four from each counter. Floor: one
// read and one write; ten Philox rounds for four elements are about as long as moving them.

#include <cmath>

#include "monoid/core/random.h"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/dropout.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWords = 4;  // of a counter

template <class T>
__global__ void __launch_bounds__(kThreads) drop(const T* x, int64_t count, uint32_t lowest_kept, float scale,
                                                 uint64_t seed, uint64_t first, const int64_t* base, T* y) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWords;
  if (i >= count) return;
  const uint64_t start = first + (base ? static_cast<uint64_t>(*base) : 0);
  const auto words = philox(seed, (start + static_cast<uint64_t>(i)) / kWords);
  const auto kept = [&](int n, float value) {
    return words[static_cast<size_t>(n)] >> 8 >= lowest_kept ? value * scale : 0;
  };
  if (i + kWords <= count && aligned_for<kWords>(x) && aligned_for<kWords>(y)) {
    float values[kWords];
    load<kWords>(x + i, values);
#pragma unroll
    for (int n = 0; n < kWords; ++n) values[n] = kept(n, values[n]);
    store<kWords>(y + i, values);
  } else {
    for (int n = 0; n < kWords && i + n < count; ++n) y[i + n] = narrow<T>(kept(n, widen(x[i + n])));
  }
}

}  // namespace

void dropout(const Tensor& x, double probability, uint64_t seed, uint64_t first, const Tensor& base, Tensor& y) {
  const Launch launch("dropout", x);
  const Tensor dense = x.is_contiguous() ? x : x.clone();
  // uniform < probability for the 24-bit uniform numbers, as whole numbers.
  const auto lowest_kept = static_cast<uint32_t>(std::ceil(probability * 0x1p24));
  dispatch_storage("dropout", x.dtype(), [&]<class T>() {
    launch(drop<T>, static_cast<unsigned>(blocks_for(x.elements(), kThreads * kWords)), kThreads, dense.data<T>(),
           x.elements(), lowest_kept, static_cast<float>(1 / (1 - probability)), seed, first, address_of<int64_t>(base),
           y.data<T>());
  });
}

}  // namespace monoid::cuda

// Several small copies in one launch: a block row a copy, sixteen bytes a thread where both ends lie on that grid.

#include "monoid/kernels/decoding.h"

#include <algorithm>
#include <cstdint>

#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/cuda/thin_matmul.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256, kMostCopies = 64;  // of a launch, whose table is a parameter

struct Copies {
  const void* from[kMostCopies];
  void* to[kMostCopies];
  int64_t bytes[kMostCopies];
};

template <class Word>
__device__ __forceinline__ void copy_words(const void* from, void* to, int64_t bytes) {
  const int64_t step = int64_t{gridDim.x} * kThreads, count = bytes / static_cast<int64_t>(sizeof(Word));
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step)
    static_cast<Word*>(to)[i] = static_cast<const Word*>(from)[i];
}

__global__ void __launch_bounds__(kThreads) copy_items(const __grid_constant__ Copies copies) {
  wait_for_previous();
  const void* const from = copies.from[blockIdx.y];
  void* const to = copies.to[blockIdx.y];
  const int64_t bytes = copies.bytes[blockIdx.y];
  const bool wide = (reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) | bytes) % sizeof(uint4) == 0;
  wide ? copy_words<uint4>(from, to, bytes) : copy_words<uint8_t>(from, to, bytes);
}

}  // namespace

void copy_each(const Tensor& on, std::span<const CopyItem> items) {
  const Launch launch("copy_each", on);
  for (size_t first = 0; first < items.size(); first += kMostCopies) {
    const auto part = items.subspan(first, std::min<size_t>(kMostCopies, items.size() - first));
    Copies copies{};
    int64_t longest = 0;
    for (size_t i = 0; i < part.size(); ++i) {
      Tensor to = part[i].to;
      copies.from[i] = part[i].from.raw();
      copies.to[i] = to.raw();
      copies.bytes[i] = to.elements() * static_cast<int64_t>(size_of(to.dtype()));
      longest = std::max(longest, copies.bytes[i]);
    }
    const int64_t blocks = std::min<int64_t>(blocks_for(longest, kThreads * int64_t{sizeof(uint4)}), 64);
    launch.overlapped(copy_items, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(part.size())), kThreads,
                      copies);
  }
}

void few_rows_linear(const Tensor& x, const Tensor& weight, const FewRowsExtras& extras, Tensor& y) {
  dispatch_storage("linear", x.dtype(), [&]<class T>() {
    const Launch launch("linear", x);
    const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
    if (m == 0 || k == 0 || n == 0) return;
    Tensor result = Tensor::empty({m, n}, x.dtype(), x.device());
    ThinProduct<T> product{
        x.data<T>(), weight.data<T>(), address_of<T>(extras.bias), nullptr, result.data<T>(), k, k, n, m, n, k};
    product.normed = extras.normed;
    product.norm_weight = address_of<T>(extras.norm_weight);
    product.eps = extras.eps;
    product.gelu = extras.activation == Activation::gelu;
    if (thin_product<T>(launch, product)) y = result;
  });
}

}  // namespace monoid::cuda

#pragma once

#include <algorithm>
#include <cstdint>

#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/rows.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"

// Rows shared by groups of threads: a part of a warp for short rows, a warp, a block for long ones. A thread's part of
// a row is every size-th pack of it, kept in registers between the passes over the row, so memory is read once.

namespace monoid::cuda {

inline constexpr int kMostGroupThreads = 256;
inline constexpr int kBlockThreads = 128;  // of blocks that hold several groups
inline constexpr int kHeldWide = 32;       // elements of a row that a thread keeps in packs of sixteen bytes,
inline constexpr int kHeldSingle = 16;     // and of rows that packs do not fit

/// How many threads share a row of some length, and the shape of blocks that follows.
struct RowGroups {
  RowGroups(int64_t length, int held_a_thread) : holds(kMostGroupThreads * held_a_thread >= length) {
    while (size() < kMostGroupThreads && size() * held_a_thread < length) ++log2_size;
  }
  int size() const { return 1 << log2_size; }
  int block() const { return std::max(size(), kBlockThreads); }
  int rows_per_block() const { return block() >> log2_size; }

  bool holds;
  int log2_size = 3;
};

/// True where all these tensors can be read in packs of sixteen bytes, row by row.
template <class T, class... Tensors>
bool rows_in_packs(const Tensors&... tensors) {
  const auto fits = [](const Tensor& x) {
    return !x.defined() || (aligned_for<kWide<T>>(x.template data<T>()) && row_length(x) % kWide<T> == 0 &&
                            RowOffsets(x).multiples_of(kWide<T>));
  };
  return (fits(tensors) && ...);
}

/// This thread's place in its group.
class RowGroup {
 public:
  __device__ explicit RowGroup(int log2_size) : size_(1 << log2_size), shift_(log2_size) {}

  __device__ int size() const { return size_; }
  __device__ int thread() const { return static_cast<int>(threadIdx.x) & (size_ - 1); }
  __device__ int index_in_block() const { return static_cast<int>(threadIdx.x) >> shift_; }
  __device__ int rows_per_block() const { return static_cast<int>(blockDim.x) >> shift_; }

  /// True if it is so in any thread that this one folds together with, be it in another group.
  __device__ bool any(bool here) const {
    return size_ <= kWarp ? __any_sync(kAllLanes, here) != 0 : __syncthreads_or(here) != 0;
  }

  /// N folds over the group, in every thread of it. All threads of the block must call it.
  template <class T, int N, class Combine = Plus>
  __device__ __forceinline__ void reduce(T (&values)[N], Combine combine = {}) const {
    for (int distance = min(size_, kWarp) / 2; distance > 0; distance /= 2) {
#pragma unroll
      for (int n = 0; n < N; ++n) values[n] = combine(values[n], __shfl_xor_sync(kAllLanes, values[n], distance));
    }
    if (size_ <= kWarp) return;
    __shared__ T partial[N][kMostGroupThreads / kWarp];
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    const int first = warp & ~(size_ / kWarp - 1), last = first + size_ / kWarp;
    __syncthreads();  // an earlier call may still be reading
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (lane == 0) partial[n][warp] = values[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; ++n) {
      values[n] = partial[n][first];
      for (int w = first + 1; w < last; ++w) values[n] = combine(values[n], partial[n][w]);
    }
  }

 private:
  int size_, shift_;
};

/// Calls body(p, column) for the packs of V elements that are this thread's part of a row: kPacks at most, known at
/// compile time so that they fit registers, or any number for kPacks = 0.
template <int V, int kPacks, class Body>
__device__ __forceinline__ void for_packs(const RowGroup& group, int64_t length, Body body) {
  if constexpr (kPacks > 0) {
    const int first = group.thread() * V, step = group.size() * V, end = static_cast<int>(length);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (first + p * step < end) body(p, first + p * step);
    }
  } else {
    for (int64_t column = group.thread() * V; column < length; column += group.size() * V) body(0, column);
  }
}

/// A thread's part of a row: in registers, or for kPacks = 0 in memory and read again each time.
template <class T, int V, int kPacks>
class RowPart {
 public:
  __device__ __forceinline__ RowPart(const T* row, const RowGroup& group, int64_t length) : row_(row) {
    if constexpr (kPacks > 0) {
      for_packs<V, kPacks>(group, length, [&](int p, int column) { packs_[p] = load_raw<V>(row + column); });
    }
  }

  __device__ __forceinline__ void get(int p, int64_t column, float (&x)[V]) const {
    if constexpr (kPacks > 0) {
#pragma unroll
      for (int i = 0; i < V; ++i) x[i] = packs_[p][i];
    } else {
      load(row_ + column, x);
    }
  }

  /// Adds another row, writes the rounded sum to `to`, and is that sum from then on.
  __device__ __forceinline__ void add(const RowPart& other, T* to, const RowGroup& group, int64_t length) {
    for_packs<V, kPacks>(group, length, [&](int p, auto column) {
      float x[V], y[V];
      get(p, column, x);
      other.get(p, column, y);
#pragma unroll
      for (int i = 0; i < V; ++i) x[i] += y[i];
      const Raw<T, V> sum(x);
      store_raw(to + column, sum);
      if constexpr (kPacks > 0) packs_[p] = sum;
    });
    row_ = to;
  }

 private:
  Raw<T, V> packs_[kPacks > 0 ? kPacks : 1];
  const T* row_;
};

}  // namespace monoid::cuda

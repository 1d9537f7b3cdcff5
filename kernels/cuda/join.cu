// All pieces in one launch, which for small tensors is what joining costs. The joined tensor is seen as rows, in which
// a piece has one run: sixteen bytes a thread where addresses allow, else neighbouring threads move neighbouring
// elements. Pieces whose runs are not dense are copied by themselves. Floor: one read, one write.

#include "monoid/kernels/join.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "monoid/core/copy.h"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {
namespace {

constexpr int kMost = 8, kThreads = 256;

template <class T>
struct Run {
  const T* from;  // or nullptr for zeros
  T* to;
  int64_t step;     // between rows of `from`
  uint32_t length;  // of a row
  uint32_t blocks;  // up to and with this piece
  bool wide;
};

template <class T>
struct JoinCall {
  Run<T> runs[kMost];
  int count = 0;
  uint32_t rows = 0;
  int64_t step = 0;  // between rows of the whole
};

template <class T>
__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ JoinCall<T> call) {
  constexpr int kPack = kWide<T>;
  wait_for_previous();
  int n = 0;
  while (blockIdx.x >= call.runs[n].blocks) ++n;
  const Run<T>& run = call.runs[n];
  const uint32_t first = (blockIdx.x - (n > 0 ? call.runs[n - 1].blocks : 0)) * kThreads, thread = threadIdx.x;
  if (run.wide) {
    const uint32_t packs = run.length / kPack, at = first + thread, row = at / packs, column = at % packs * kPack;
    if (row >= call.rows) return;
    const Pack<T, kPack> zeros{};
    *reinterpret_cast<Pack<T, kPack>*>(run.to + row * call.step + column) =
        run.from ? *reinterpret_cast<const Pack<T, kPack>*>(run.from + row * run.step + column) : zeros;
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const uint32_t at = first * kPack + i * kThreads + thread, row = at / run.length, column = at % run.length;
    if (row < call.rows) run.to[row * call.step + column] = run.from ? run.from[row * run.step + column] : T{};
  }
}

// The step between rows, which are all that the axes from `axis` on hold, or -1 if there is none.
int64_t step_of_rows(const Tensor& x, int axis) {
  int64_t run = 1, step = -1, next = 0;
  for (int i = x.rank() - 1; i >= 0; --i) {
    if (x.size(i) == 1) continue;
    const int64_t stride = x.strides()[i];
    if (i >= axis) {
      if (stride != run) return -1;
      run *= x.size(i);
    } else {
      if (step < 0) step = next = stride;
      if (stride != next || stride < 0) return -1;
      next *= x.size(i);
    }
  }
  return std::max<int64_t>(step, 0);
}

template <class T>
bool fits_packs(const T* address, int64_t step) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0 && step % kWide<T> == 0;
}

template <class T>
void join_bits(const Launch& launch, std::span<const JoinPiece> pieces, int axis, Tensor& whole) {
  const int64_t inner = whole.strides()[axis], step = inner * whole.size(axis), rows = whole.elements() / step;
  T* const to = static_cast<T*>(whole.raw());
  JoinCall<T> call{};
  call.step = step;
  call.rows = static_cast<uint32_t>(rows);
  const auto start = [&] {
    if (call.count == 0) return;
    launch.overlapped(join_kernel<T>, call.runs[call.count - 1].blocks, kThreads, call);
    call.count = 0;
  };
  int64_t first = 0;
  for (const auto& [x, extent] : pieces) {
    const int64_t length = extent * inner, begin = std::exchange(first, first + extent) * inner;
    if (length == 0) continue;
    const int64_t from_step = x.defined() ? step_of_rows(x, axis) : 0;
    if (from_step < 0 || rows * length > std::numeric_limits<int32_t>::max()) {
      Tensor window = whole.as_strided(whole.shape().with(axis, extent), whole.strides(), whole.offset() + begin);
      if (x.defined()) {
        copy(x, window);
      } else {
        fill(window, 0);
      }
      continue;
    }
    if (call.count == kMost) start();
    const T* const from = x.defined() ? static_cast<const T*>(x.raw()) : nullptr;
    const bool wide = length % kWide<T> == 0 && fits_packs(from, from_step) && fits_packs(to + begin, step);
    const uint32_t before = call.count > 0 ? call.runs[call.count - 1].blocks : 0;
    call.runs[call.count++] = {from,
                               to + begin,
                               from_step,
                               static_cast<uint32_t>(length),
                               before + static_cast<uint32_t>(blocks_for(rows * length, int64_t{kThreads} * kWide<T>)),
                               wide};
  }
  start();
}

}  // namespace

void join(std::span<const JoinPiece> pieces, int axis, Tensor& whole) {
  if (whole.elements() == 0) return;
  const Launch launch("join", whole);
  dispatch_bits(whole.dtype(), [&]<class T>() { join_bits<T>(launch, pieces, axis, whole); });
}

}  // namespace monoid::cuda

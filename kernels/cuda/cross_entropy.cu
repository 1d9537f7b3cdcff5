// Cross-entropy. Floor: logits read, their gradient written, 2 units (the losses alone, 1); probabilities are never
// stored. Rows of up to some thousand classes lie in the registers of a group of threads. A longer row belongs to a
// block, which keeps it in shared memory: one pass finds the maximum and the sum, running, one writes the gradient, and
// behind it the next row arrives in the places that become free. What shared memory cannot hold is read twice.
//
// exp(x - max) is 2^(x log2(e) - pivot), a multiply-add and a power of two: off by 6e-8 |x - max| of itself. The pivot,
// max log2(e), is rounded, but alike for all classes, and so it cancels in losses and probabilities whatever the offset
// of the logits.

#include "monoid/kernels/cross_entropy.h"

#include "monoid/kernels/cuda/device/approximate.cuh"
#include "monoid/kernels/cuda/device/async_copy.cuh"
#include "monoid/kernels/cuda/device/row_group.cuh"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {
namespace {

constexpr int kRowThreads = 512;   // share a long row
constexpr int kPacksInFlight = 4;  // of a thread, where it reads past shared memory
constexpr int kGroups = 4;         // of copies into shared memory, a row
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Elements x as exponents of two below the greatest. An infinite greatest element is 0 below itself and everything else
// -infinity below it; in a row of -infinities every element stays -infinity.
struct Pivot {
  __device__ explicit Pivot(float greatest)
      : infinite(greatest == INFINITY), shift(isinf(greatest) ? 0 : greatest * kLog2E) {}

  template <int N>
  __device__ __forceinline__ void operator()(float (&x)[N]) const {
    if (infinite) {
      asm volatile("");  // a branch that is hardly ever taken, not selects for all elements
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = x[i] == INFINITY ? 0 : isnan(x[i]) ? x[i] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = fmaf(x[i], kLog2E, -shift);
  }

  bool infinite;
  float shift;
};

template <class T>
struct Rows {
  const T* logits;
  const int64_t *targets, *counted;
  const float *known, *dlosses;  // statistics and cotangents of losses that were computed before
  float *losses, *statistics;
  T* dlogits;
  FaultRecord* faults;
  RowOffsets row_of;
  int64_t rows, classes, ignore_index;
  float hard, soft;          // weights of the target and of every class
  int group = 0, slots = 0;  // log2 of the threads that share a short row; packs of a long one that a thread keeps

  // False for ignored rows, and for those whose target is no class, after reporting it from one thread.
  __device__ bool counts(int64_t row, int64_t target, bool reporter) const {
    if (target == ignore_index) return false;
    if (target >= 0 && target < classes) return true;
    if (reporter) report(faults, Fault::target_class, row, static_cast<double>(target), static_cast<double>(classes));
    return false;
  }
  // What the loss of a row weighs in the result.
  __device__ float weight_of(int64_t row) const {
    if (dlosses) return dlosses[row];
    if (!counted) return 1;
    return *counted > 0 ? 1 / static_cast<float>(*counted) : 0;
  }
  // Called by one thread of a row: the sum of the powers, the exponent of the target and the sum of all exponents.
  __device__ void finish(int64_t row, bool counts, float max, float sum, float of_target, float of_all) const {
    float expected = hard != 0 ? hard * of_target : 0;  // 0 * -infinity is no number
    if (soft != 0) expected += soft * of_all;
    losses[row] = !counts ? 0 : sum == 0 ? INFINITY : (log2f(sum) - expected) * kLn2;
    if (!statistics) return;
    statistics[2 * row] = max;
    statistics[2 * row + 1] = counts && sum != 0 ? 1 / sum : 0;
  }
};

// dlogits of a row: (softmax(x) - (1 - e) onehot - e / classes) * weight, or zeros; from exponents.
template <class T>
struct Slope {
  __device__ Slope(const Rows<T>& in, int64_t row, int64_t target_of_row, bool counts, float inverse_sum)
      : silent(!counts || inverse_sum == 0), target(target_of_row) {
    const float weight = in.weight_of(row);
    probability = inverse_sum * weight;
    uniform = in.soft * weight;
    hard = in.hard * weight;
  }

  template <int N>
  __device__ __forceinline__ void operator()(float (&x)[N], int64_t column) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = silent ? 0 : exp2_approximate(x[i]) * probability - uniform;
    if (silent || target < column || target >= column + N) return;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (column + i == target) x[i] -= hard;
    }
  }

  bool silent;
  int64_t target;
  float probability, uniform, hard;
};

template <class T, int V, int kPacks>
__global__ void __launch_bounds__(kMostGroupThreads, 3) held_rows(const __grid_constant__ Rows<T> in) {
  const RowGroup group(in.group);
  const int64_t rows_per_block = group.rows_per_block();
  for (int64_t first = blockIdx.x * rows_per_block; first < in.rows; first += gridDim.x * rows_per_block) {
    const int64_t row = first + group.index_in_block(), length = row < in.rows ? in.classes : 0;
    const bool exists = row < in.rows, leads = group.thread() == 0;
    const RowPart<T, V, kPacks> x(in.logits + in.row_of(row), group, length);
    const int64_t target = exists ? in.targets[row] : in.ignore_index;
    const bool counts = in.counts(row, target, leads);
    float max[1] = {-INFINITY}, sums[2] = {}, inverse_sum = 0;  // powers, all exponents
    float of_target[1] = {leads && counts ? widen(in.logits[in.row_of(row) + target]) : 0};
    if (in.known) {
      max[0] = exists ? in.known[2 * row] : 0;
      inverse_sum = exists ? in.known[2 * row + 1] : 0;
    } else {
      for_packs<V, kPacks>(group, length, [&](int p, int column) {
        float values[V];
        x.get(p, column, values);
#pragma unroll
        for (int i = 0; i < V; ++i) max[0] = fmaxf(max[0], values[i]);
      });
      group.reduce(max, Largest{});
    }
    const Pivot pivot(max[0]);
    if (!in.known) {
      for_packs<V, kPacks>(group, length, [&](int p, int column) {
        float values[V];
        x.get(p, column, values);
        pivot(values);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          sums[0] += exp2_approximate(values[i]);
          if (in.soft != 0) sums[1] += values[i];
        }
      });
      group.reduce(sums);
      inverse_sum = sums[0] == 0 ? 0 : 1 / sums[0];
      pivot(of_target);
      if (leads && exists) in.finish(row, counts, max[0], sums[0], of_target[0], sums[1]);
    }
    if (!in.dlogits || !exists) continue;
    const Slope<T> slope(in, row, target, counts, inverse_sum);
    T* const dx = in.dlogits + row * in.classes;
    for_packs<V, kPacks>(group, length, [&](int p, int column) {
      float values[V];
      x.get(p, column, values);
      pivot(values);
      slope(values, column);
      store(dx + column, values);
    });
  }
}

// The greatest of some elements, and the sum of the powers of two of all of them below it.
struct MaxAndSum {
  template <int N>
  __device__ __forceinline__ void add(const float (&x)[N]) {
    float greatest = max, exponents[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      greatest = fmaxf(greatest, x[i]);
      exponents[i] = x[i];
    }
    raise(greatest);
    Pivot pivot(max);
    pivot(exponents);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += exp2_approximate(exponents[i]);
  }
  __device__ __forceinline__ void raise(float greatest) {
    if (!(greatest > max)) return;
    if (greatest == INFINITY)
      sum *= 0;
    else if (max != -INFINITY)
      sum *= exp2_approximate(Pivot(max).shift - Pivot(greatest).shift);
    max = greatest;
  }
  __device__ void reduce_over_block() {
    raise(block_reduce<kRowThreads>(max, -INFINITY, Largest{}));
    sum = block_reduce<kRowThreads>(sum, 0.f);
  }

  float max = -INFINITY, sum = 0;
};

// A row as whole packs at aligned addresses, and the few elements before and behind them, one a thread.
template <class T, int V>
struct AlignedRow {
  __device__ AlignedRow(const T* row, int64_t length) {
    const auto misplaced = static_cast<int>(reinterpret_cast<uintptr_t>(row) / sizeof(T) % V);
    head = misplaced > 0 ? V - misplaced : 0;
    count = static_cast<int>((length - head) / V);
    packs = reinterpret_cast<const Raw<T, V>*>(row + head);
    const int edges = static_cast<int>(length - int64_t{count} * V), thread = static_cast<int>(threadIdx.x);
    has_edge = thread < edges;
    edge = thread < head ? thread : int64_t{count} * V + thread;
  }

  int head, count;
  const Raw<T, V>* packs;
  bool has_edge;
  int64_t edge;
};

template <class T, int V>
__global__ void __launch_bounds__(kRowThreads, 2) long_rows(const __grid_constant__ Rows<T> in) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const kept = reinterpret_cast<Raw<T, V>*>(shared);  // a thread reads only the packs that it copied
  const int thread = static_cast<int>(threadIdx.x), slots_of_group = (in.slots + kGroups - 1) / kGroups;
  const auto fetch = [&](const AlignedRow<T, V>& row, int slot) {
    const int p = slot * kRowThreads + thread;
    if constexpr (V > 1) copy_async(kept + p, row.packs + p, p < row.count);
  };
  const auto row_at = [&](int64_t row) {
    return AlignedRow<T, V>(in.logits + in.row_of(row), row < in.rows ? in.classes : V);
  };

  AlignedRow<T, V> x = row_at(blockIdx.x);
  for (int group = 0; group < kGroups; ++group) {
    for (int slot = group * slots_of_group; slot < min(in.slots, (group + 1) * slots_of_group); ++slot) fetch(x, slot);
    commit_copies();
  }
  for (int64_t row = blockIdx.x; row < in.rows; row += gridDim.x) {
    const int64_t target = in.targets[row];
    const bool leads = thread == 0, counts = in.counts(row, target, leads);
    const T* const first = in.logits + in.row_of(row);
    T* const dx = in.dlogits ? in.dlogits + row * in.classes : nullptr;
    float of_target[1] = {counts ? widen(first[target]) : 0}, of_all = 0;
    const float edge = x.has_edge ? widen(first[x.edge]) : 0;
    const AlignedRow<T, V> next = row_at(row + gridDim.x);
    const bool exists_next = row + gridDim.x < in.rows;

    // body(elements, column) for this thread's part of the row. The last pass over it makes room for the next row.
    const auto pass = [&](bool last, auto body) {
      float values[V];
      for (int group = 0; group < kGroups; ++group) {
        wait_for_copies<kGroups - 1>();
        for (int slot = group * slots_of_group; slot < min(in.slots, (group + 1) * slots_of_group); ++slot) {
          const int p = slot * kRowThreads + thread;
          const Raw<T, V> pack = kept[p];
          if (last && exists_next) fetch(next, slot);
          if (p >= x.count) break;
#pragma unroll
          for (int i = 0; i < V; ++i) values[i] = pack[i];
          body(values, x.head + int64_t{p} * V);
        }
        commit_copies();
      }
      for (int p = in.slots * kRowThreads + thread; p < x.count; p += kPacksInFlight * kRowThreads) {
        Raw<T, V> loaded[kPacksInFlight];
#pragma unroll
        for (int u = 0; u < kPacksInFlight; ++u) {
          if (p + u * kRowThreads < x.count) loaded[u] = x.packs[p + u * kRowThreads];
        }
#pragma unroll
        for (int u = 0; u < kPacksInFlight; ++u) {
          if (p + u * kRowThreads >= x.count) break;
#pragma unroll
          for (int i = 0; i < V; ++i) values[i] = loaded[u][i];
          body(values, x.head + int64_t{p + u * kRowThreads} * V);
        }
      }
      float single[1] = {edge};
      if (x.has_edge) body(single, x.edge);
    };

    MaxAndSum statistics;
    float inverse_sum = 0;
    const bool smooths = !in.known && in.soft != 0;
    if (in.known) {
      statistics.max = in.known[2 * row];
      inverse_sum = in.known[2 * row + 1];
    } else {
      pass(!dx && !smooths, [&](auto& values, int64_t) { statistics.add(values); });
      statistics.reduce_over_block();
      inverse_sum = statistics.sum == 0 ? 0 : 1 / statistics.sum;
    }
    const Pivot pivot(statistics.max);
    if (dx || smooths) {
      const Slope<T> slope(in, row, target, counts, inverse_sum);
      pass(true, [&](auto& values, int64_t column) {
        pivot(values);
        if (smooths) {
          for (const float value : values) of_all += value;
        }
        slope(values, column);
        if (dx) store(dx + column, values);
      });
      if (smooths) of_all = block_reduce<kRowThreads>(of_all, 0.f);
    }
    pivot(of_target);
    if (leads && !in.known) in.finish(row, counts, statistics.max, statistics.sum, of_target[0], of_all);
    x = next;
  }
}

template <class T>
void launch_long_rows(const Launch& launch, Rows<T> in, bool in_packs) {
  const auto kernel = in_packs ? long_rows<T, kWide<T>> : long_rows<T, 1>;
  // As many slots as the row needs: two blocks a multiprocessor where both fit, else one with all shared memory.
  const auto slot_bytes = static_cast<int64_t>(kRowThreads * sizeof(Raw<T, kWide<T>>));
  const int64_t most = (static_cast<int64_t>(launch.device().shared_bytes_per_block) - 1024) / slot_bytes;
  in.slots = in_packs ? static_cast<int>(std::min(most, blocks_for(in.classes, kRowThreads * kWide<T>))) : 0;
  const auto shared_bytes = static_cast<size_t>(in.slots * slot_bytes);
  const int resident =
      launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), kRowThreads, shared_bytes);
  const int64_t blocks = std::min<int64_t>(in.rows, int64_t{resident} * launch.device().multiprocessors);
  launch.with_shared(kernel, static_cast<unsigned>(blocks), kRowThreads, shared_bytes, in);
}

template <class T>
void launch_rows(const Launch& launch, Rows<T> in, const Tensor& logits, const Tensor& dlogits) {
  const auto held = [&](auto kernel, const RowGroups& groups) {
    in.group = groups.log2_size;
    const int64_t blocks = std::min<int64_t>(blocks_for(in.rows, groups.rows_per_block()), 1 << 30);
    launch(kernel, static_cast<unsigned>(blocks), groups.block(), in);
  };
  constexpr int kV = kWide<T>;
  const RowGroups in_packs(in.classes, kHeldWide), single(in.classes, kHeldSingle);
  const bool wide = rows_in_packs<T>(logits, dlogits);
  if (wide && in_packs.holds) return held(held_rows<T, kV, kHeldWide / kV>, in_packs);
  if (single.holds) return held(held_rows<T, 1, kHeldSingle>, single);
  // Packs fit both sides where their rows are shifted alike against sixteen bytes.
  const bool alike = logits.is_contiguous() && aligned_for<kV>(in.logits) && aligned_for<kV>(in.dlogits);
  launch_long_rows(launch, in, wide || alike || !in.dlogits);
}

template <class T>
Rows<T> rows_of(const Launch& launch, const Tensor& logits, const Tensor& targets, int64_t ignore_index,
                double smoothing, Tensor& dlogits) {
  const int64_t classes = row_length(logits);
  return {.logits = logits.data<T>(),
          .targets = targets.data<int64_t>(),
          .counted = nullptr,
          .known = nullptr,
          .dlosses = nullptr,
          .losses = nullptr,
          .statistics = nullptr,
          .dlogits = address_of<T>(dlogits),
          .faults = fault_record(launch.index()),
          .row_of = RowOffsets(logits),
          .rows = row_count(logits),
          .classes = classes,
          .ignore_index = ignore_index,
          .hard = static_cast<float>(1 - smoothing),
          .soft = static_cast<float>(smoothing / static_cast<double>(classes))};
}

}  // namespace

void cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& counted, int64_t ignore_index,
                   double smoothing, Tensor& losses, Tensor& statistics, Tensor& dlogits) {
  const Launch launch("cross_entropy", logits);
  dispatch_storage("cross_entropy", logits.dtype(), [&]<class T>() {
    Rows<T> in = rows_of<T>(launch, logits, targets, ignore_index, smoothing, dlogits);
    in.counted = address_of<int64_t>(counted);
    in.losses = losses.data<float>();
    in.statistics = address_of<float>(statistics);
    launch_rows(launch, in, logits, dlogits);
  });
}

void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, const Tensor& statistics,
                            const Tensor& dlosses, int64_t ignore_index, double smoothing, Tensor& dlogits) {
  const Launch launch("cross_entropy", logits);
  dispatch_storage("cross_entropy", logits.dtype(), [&]<class T>() {
    Rows<T> in = rows_of<T>(launch, logits, targets, ignore_index, smoothing, dlogits);
    in.known = statistics.data<float>();
    in.dlosses = dlosses.data<float>();
    launch_rows(launch, in, logits, dlogits);
  });
}

}  // namespace monoid::cuda

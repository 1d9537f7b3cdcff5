// Cross-entropy. Floor: logits read, their gradient written, 2 units (the losses alone, 1); probabilities are never
// stored. Rows of up to some thousand classes lie in the registers of a group of threads. A longer row belongs to a
// block, whose threads read it once with a running (maximum, sum) pair and leave it in shared memory as far as that
// reaches; what is beyond, a thread reads again, from the cache. Losses are formed from differences to the maximum, not
// from a logsumexp that an offset of the logits would have rounded.

#include "monoid/kernels/cross_entropy.h"

#include "monoid/kernels/cuda/device/row_group.cuh"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {
namespace {

constexpr int kRowThreads = 512;   // share a long row
constexpr int kPacksInFlight = 4;  // of a thread

// exp for probabilities in T: for bf16 the product with log2(e) is rounded before the power of two, 6e-8 |x| of it.
template <class T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (std::is_same_v<T, float>) return expf(x);
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.44269504f));
  return result;
}

// x - greatest without a NaN at infinities: an infinite greatest element is 0 below itself and everything else
// -infinity below it; in a row of -infinities every element stays -infinity.
struct Shifted {
  __device__ explicit Shifted(float greatest) : shift(greatest == -INFINITY ? 0 : greatest) {}
  __device__ float operator()(float x) const { return x == shift ? 0 : x - shift; }

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
  float hard, soft;  // weights of the target and of every class
  int group = 0, kept = 0;

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
  // Called by one thread of a row: `sum` of exp(x - max) and, for smoothing, of x - max itself.
  __device__ void finish(int64_t row, int64_t target, bool counts, float max, float sum, float sum_below) const {
    float loss = 0;
    if (counts) {
      const float below = Shifted(max)(widen(logits[row_of(row) + target]));
      float expected = hard != 0 ? hard * below : 0;  // 0 * -infinity is no number
      if (soft != 0) expected += soft * sum_below;
      loss = sum == 0 ? INFINITY : logf(sum) - expected;
    }
    losses[row] = loss;
    if (!statistics) return;
    statistics[2 * row] = counts ? max : 0;
    statistics[2 * row + 1] = counts && sum != 0 ? 1 / sum : 0;
  }
};

// dlogits of a row: (softmax(x) - (1 - e) onehot - e / classes) * weight, or zeros.
template <class T>
struct Slope {
  __device__ Slope(const Rows<T>& in, int64_t row, int64_t target_of_row, bool counts, float max, float inverse_sum)
      : below(max), silent(!counts || inverse_sum == 0), target(target_of_row) {
    const float weight = in.weight_of(row);
    probability = inverse_sum * weight;
    uniform = in.soft * weight;
    hard = in.hard * weight;
  }

  template <int N>
  __device__ __forceinline__ void operator()(float (&x)[N], int64_t column) const {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = silent ? 0 : exponential<T>(below(x[i])) * probability - uniform;
    if (silent || target < column || target >= column + N) return;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (column + i == target) x[i] -= hard;
    }
  }

  Shifted below;
  bool silent;
  int64_t target;
  float probability, uniform, hard;
};

template <class T, int V, int kPacks>
__global__ void __launch_bounds__(kMostGroupThreads) held_rows(const __grid_constant__ Rows<T> in) {
  const RowGroup group(in.group);
  const int64_t rows_per_block = group.rows_per_block();
  for (int64_t first = blockIdx.x * rows_per_block; first < in.rows; first += gridDim.x * rows_per_block) {
    const int64_t row = first + group.index_in_block();
    const bool exists = row < in.rows, leads = group.thread() == 0;
    const int64_t target = exists ? in.targets[row] : in.ignore_index;
    const bool counts = in.counts(row, target, leads);
    const int64_t length = counts ? in.classes : 0;
    const RowPart<T, V, kPacks> x(in.logits + in.row_of(row), group, length);
    float max[1] = {-INFINITY}, sums[2] = {}, inverse_sum = 0;
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
      const Shifted below(max[0]);
      for_packs<V, kPacks>(group, length, [&](int p, int column) {
        float values[V];
        x.get(p, column, values);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const float difference = below(values[i]);
          sums[0] += exponential<T>(difference);
          sums[1] += difference;
        }
      });
      group.reduce(sums);
      inverse_sum = sums[0] == 0 ? 0 : 1 / sums[0];
      if (leads && exists) in.finish(row, target, counts, max[0], sums[0], sums[1]);
    }
    if (!in.dlogits || !exists) continue;
    const Slope<T> slope(in, row, target, counts, max[0], inverse_sum);
    for_packs<V, kPacks>(group, in.classes, [&](int p, int column) {
      float values[V];
      x.get(p, column, values);
      slope(values, column);
      store(in.dlogits + row * in.classes + column, values);
    });
  }
}

// The greatest of some elements and the sum of exp(x - greatest).
template <class T>
struct MaxAndSum {
  template <int N>
  __device__ __forceinline__ void add(const float (&x)[N]) {
    float greatest = max;
#pragma unroll
    for (int i = 0; i < N; ++i) greatest = fmaxf(greatest, x[i]);
    const Shifted below(greatest);
    if (greatest > max) {
      sum *= exponential<T>(below(max));
      max = greatest;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sum += exponential<T>(below(x[i]));
  }

  __device__ void reduce_over_block() {
    const float greatest = block_reduce<kRowThreads>(max, -INFINITY, Largest{});
    sum = block_reduce<kRowThreads>(sum * exponential<T>(Shifted(greatest)(max)), 0.f);
    max = greatest;
  }

  float max = -INFINITY, sum = 0;
};

// A row as whole packs at aligned addresses, and the few elements before and behind them, one a thread.
template <class T, int V>
struct AlignedRow {
  __device__ AlignedRow(const T* row, int64_t length) {
    const auto misplaced = static_cast<int>(reinterpret_cast<uintptr_t>(row) / sizeof(T) % V);
    head = V - misplaced < V ? V - misplaced : 0;
    packs = static_cast<int>((length - head) / V);
    const int edges = static_cast<int>(length - int64_t{packs} * V), thread = static_cast<int>(threadIdx.x);
    has_edge = thread < edges;
    edge = thread < head ? thread : int64_t{packs} * V + thread;
  }

  int head, packs;
  bool has_edge;
  int64_t edge;
};

template <class T, int V>
__global__ void __launch_bounds__(kRowThreads, 2) long_rows(const __grid_constant__ Rows<T> in) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const kept = reinterpret_cast<Raw<T, V>*>(shared);  // each thread's own packs: nobody else reads them
  for (int64_t row = blockIdx.x; row < in.rows; row += gridDim.x) {
    const int64_t target = in.targets[row];
    const bool leads = threadIdx.x == 0, counts = in.counts(row, target, leads);
    const T* const x = in.logits + in.row_of(row);
    T* const dx = in.dlogits ? in.dlogits + row * in.classes : nullptr;
    const AlignedRow<T, V> parts(x, in.classes);
    const auto* const packs = reinterpret_cast<const Raw<T, V>*>(x + parts.head);
    float edge[1] = {parts.has_edge && counts ? widen(x[parts.edge]) : -INFINITY};
    const int begin = static_cast<int>(threadIdx.x), end = counts ? parts.packs : 0;

    MaxAndSum<T> statistics;
    float inverse_sum = 0;
    if (in.known) {
      statistics.max = in.known[2 * row];
      inverse_sum = in.known[2 * row + 1];
    } else {
      statistics.add(edge);
      for (int p = begin; p < end; p += kPacksInFlight * kRowThreads) {
        Raw<T, V> loaded[kPacksInFlight];
#pragma unroll
        for (int u = 0; u < kPacksInFlight; ++u) {
          if (p + u * kRowThreads < end) loaded[u] = packs[p + u * kRowThreads];
        }
#pragma unroll
        for (int u = 0; u < kPacksInFlight; ++u) {
          const int place = p + u * kRowThreads;
          if (place >= end) break;
          if (place < in.kept) kept[place] = loaded[u];
          float values[V];
#pragma unroll
          for (int i = 0; i < V; ++i) values[i] = loaded[u][i];
          statistics.add(values);
        }
      }
      statistics.reduce_over_block();
      inverse_sum = statistics.sum == 0 ? 0 : 1 / statistics.sum;
    }

    const Slope<T> slope(in, row, target, counts, statistics.max, inverse_sum);
    const bool smooths = !in.known && in.soft != 0;
    float sum_below = 0;
    if (dx || smooths) {
      const auto pass = [&](auto& values, int64_t column, auto write) {
        if (smooths) {
          for (const float value : values) sum_below += slope.below(value);
        }
        slope(values, column);
        if (dx) write(values);
      };
      if (parts.has_edge) pass(edge, parts.edge, [&](auto& values) { store(dx + parts.edge, values); });
      for (int p = begin; p < parts.packs; p += kRowThreads) {
        float values[V] = {};
        const int64_t column = parts.head + int64_t{p} * V;
        if (counts) {
          const Raw<T, V> pack = p < in.kept && !in.known ? kept[p] : packs[p];
#pragma unroll
          for (int i = 0; i < V; ++i) values[i] = pack[i];
        }
        pass(values, column, [&](auto& result) { store(dx + column, result); });
      }
      if (smooths) sum_below = block_reduce<kRowThreads>(sum_below, 0.f);
    }
    if (leads && !in.known) in.finish(row, target, counts, statistics.max, statistics.sum, sum_below);
  }
}

template <class T>
void launch_rows(const Launch& launch, Rows<T> in, const Tensor& logits, const Tensor& dlogits) {
  const auto blocks_of = [&](int rows_per_block) {
    return static_cast<unsigned>(std::min<int64_t>(blocks_for(in.rows, rows_per_block), 1 << 30));
  };
  const auto held = [&](auto kernel, const RowGroups& groups) {
    in.group = groups.size;
    launch(kernel, blocks_of(groups.rows_per_block()), groups.block(), in);
  };
  constexpr int kV = kWide<T>;
  const RowGroups in_packs(in.classes, kHeldWide), single(in.classes, kHeldSingle);
  if (in_packs.holds && rows_in_packs<T>(logits, dlogits)) return held(held_rows<T, kV, kHeldWide / kV>, in_packs);
  if (single.holds) return held(held_rows<T, 1, kHeldSingle>, single);

  // Packs fit both sides where their rows are shifted alike against sixteen bytes.
  const bool alike = !in.dlogits || (aligned_for<kV>(in.logits) && aligned_for<kV>(in.dlogits) &&
                                     (logits.is_contiguous() || rows_in_packs<T>(logits, dlogits)));
  // Two blocks a multiprocessor, so that one loads while the other writes.
  const size_t most = launch.device().shared_bytes_per_block / 2 - 1024, row_bytes = in.classes * sizeof(T);
  const size_t shared_bytes = in.dlogits && !in.known ? std::min<size_t>(most, row_bytes) / 16 * 16 : 0;
  in.kept = static_cast<int>(shared_bytes / (alike ? 16 : sizeof(T)));
  launch.with_shared(alike ? long_rows<T, kV> : long_rows<T, 1>, blocks_of(1), kRowThreads, shared_bytes, in);
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

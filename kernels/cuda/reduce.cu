// Reductions over a monoid: sum, log-sum-exp, first extremum. Where the dense axis is reduced, groups of threads walk
// rows; where it is kept, threads own a pack of columns and walk down. Both read sixteen bytes at a time with several
// packs on the way. When there are fewer outputs than the GPU has room for, the reduced axis is cut into parts whose
// states a second kernel combines in their order. Floor: one read of x.

#include "monoid/kernels/reduce.h"

#include <vector>

#include "monoid/kernels/cuda/device/log_sum.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/cuda/strided.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A monoid: identity(), combine, absorb (numbers with consecutive indices from `first`), a number that changes nothing
// when it comes after others, and the result of a state.

struct Sum {
  using State = float;
  __device__ static float neutral() { return 0; }
  __device__ static State identity() { return 0; }
  __device__ State operator()(State a, State b) const { return a + b; }
  template <int N>
  __device__ __forceinline__ void absorb(State& state, const float (&x)[N], int64_t) const {
    float total[N];
#pragma unroll
    for (int i = 0; i < N; ++i) total[i] = x[i];
#pragma unroll
    for (int half = N / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) total[i] += total[i + half];
    }
    state += total[0];
  }
  __device__ static float result(State state) { return state; }
};

struct LogSumOfAll {
  using State = LogSum;
  __device__ static float neutral() { return -kInfinity; }
  __device__ static State identity() { return {}; }
  __device__ State operator()(State a, State b) const { return combine(a, b); }
  template <int N>
  __device__ __forceinline__ void absorb(State& state, const float (&x)[N], int64_t) const {
    state.add(x);
  }
  __device__ static float result(State state) { return state.log(); }
};

struct Place {
  float value;
  int64_t index;
};

struct First {
  using State = Place;
  float sign;  // -1: of the smallest

  __device__ float neutral() const { return sign * -kInfinity; }
  __device__ static State identity() { return {-kInfinity, std::numeric_limits<int64_t>::max()}; }
  __device__ State operator()(State a, State b) const {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool more = a.value > b.value || (a_nan && !b_nan), same = a.value == b.value || (a_nan && b_nan);
    return more || (same && a.index < b.index) ? a : b;
  }
  template <int N>
  __device__ __forceinline__ void absorb(State& state, const float (&x)[N], int64_t first) const {
#pragma unroll
    for (int i = 0; i < N; ++i) state = (*this)(state, {sign * x[i], first + i});
  }
  __device__ static int64_t result(State state) { return state.index; }
};

// What is reduced and how: `parts` of `part_extent` indices each for an output.
struct Plan {
  Axes<1> reduced;
  Axes<2> kept;  // in x and in the result; without the dense axis for columns
  int64_t extent, part_extent, outputs;
  uint32_t parts;
  uint32_t width;  // threads side by side: on a row, or on a tile of columns
  bool packed;
  // The dense kept axis, for columns.
  int64_t columns, result_step;
  uint32_t tiles;
};

// Where states go: to the result, or to [output, part] for the second kernel.
template <class Monoid, class Out>
struct Target {
  Out* result;
  typename Monoid::State* partial;

  __device__ void put(typename Monoid::State state, int64_t output, uint32_t part, uint32_t parts) const {
    if (partial) {
      partial[output * parts + part] = state;
    } else {
      result[output] = from_register<Out>(Monoid::result(state));
    }
  }
};

template <int kPack, class T>
__device__ __forceinline__ void load_valid(const T* from, int64_t valid, float neutral, float (&to)[kPack]) {
  if (valid >= kPack) {
    load<kPack>(from, to);
  } else {
#pragma unroll
    for (int i = 0; i < kPack; ++i) to[i] = i < valid ? widen(from[i]) : neutral;
  }
}

// The state of [begin, end) of a row, from the packs that fall to one of `width` threads.
template <int kPack, class Monoid, class T>
__device__ __forceinline__ typename Monoid::State walk_row(const Plan& plan, const Monoid& monoid, const T* x,
                                                           int64_t begin, int64_t end, int lane) {
  constexpr int kBatch = 4;
  auto state = Monoid::identity();
  const int64_t stride = static_cast<int64_t>(plan.width) * kPack;
  const auto address = [&](int64_t index) { return x + plan.reduced.offset(index); };
  int64_t index = begin + lane * kPack;
  for (; index + (kBatch - 1) * stride + kPack <= end; index += kBatch * stride) {
    Pack<T, kPack> packs[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) packs[k] = *reinterpret_cast<const Pack<T, kPack>*>(address(index + k * stride));
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      float values[kPack];
#pragma unroll
      for (int i = 0; i < kPack; ++i) values[i] = widen(packs[k].lanes[i]);
      monoid.absorb(state, values, index + k * stride);
    }
  }
  for (; index < end; index += stride) {
    float values[kPack];
    load_valid<kPack>(address(index), end - index, monoid.neutral(), values);
    monoid.absorb(state, values, index);
  }
  return state;
}

template <class Monoid, class T, class Out>
__global__ void __launch_bounds__(kThreads)
    reduce_rows(const __grid_constant__ Plan plan, Monoid monoid, const T* x, Target<Monoid, Out> target) {
  using State = typename Monoid::State;
  __shared__ __align__(16) unsigned char memory[kThreads / kWarp * sizeof(State)];
  wait_for_previous();
  const uint32_t group = blockIdx.x * (kThreads / plan.width) + threadIdx.x / plan.width;
  const uint32_t lane = threadIdx.x % plan.width;
  const uint32_t output = group / plan.parts, part = group - output * plan.parts;
  State state = Monoid::identity();
  int64_t at[2] = {};
  if (output < plan.outputs) {
    plan.kept.offsets(output, at);
    const int64_t begin = part * plan.part_extent, end = min(begin + plan.part_extent, plan.extent);
    state = plan.packed ? walk_row<kWide<T>>(plan, monoid, x + at[0], begin, end, lane)
                        : walk_row<1>(plan, monoid, x + at[0], begin, end, lane);
  }
  state = group_reduce(state, plan.width, reinterpret_cast<State*>(memory), monoid);
  if (lane == 0 && output < plan.outputs) target.put(state, at[1], part, plan.parts);
}

template <class Monoid, class T, class Out>
__global__ void __launch_bounds__(kThreads)
    reduce_columns(const __grid_constant__ Plan plan, Monoid monoid, const T* x, Target<Monoid, Out> target) {
  using State = typename Monoid::State;
  constexpr int kPack = kWide<T>, kBatch = 8;
  __shared__ __align__(16) unsigned char memory[kThreads * kPack * sizeof(State)];
  State* const folded = reinterpret_cast<State*>(memory);
  wait_for_previous();
  const int width = static_cast<int>(plan.width), height = kThreads / width;
  const int across = static_cast<int>(threadIdx.x) % width, down = static_cast<int>(threadIdx.x) / width;
  const uint32_t part = blockIdx.x % plan.parts, rest = blockIdx.x / plan.parts;
  const int64_t left = static_cast<int64_t>(rest % plan.tiles) * width * kPack;
  int64_t at[2];
  plan.kept.offsets(rest / plan.tiles, at);
  const auto column = [&](int i) { return left + (plan.packed ? across * kPack + i : i * width + across); };

  State states[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) states[i] = Monoid::identity();
  const auto absorb = [&](const auto& row, int64_t index) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const float value[1] = {row[i]};
      monoid.absorb(states[i], value, index);
    }
  };
  const int64_t begin = part * plan.part_extent, end = min(begin + plan.part_extent, plan.extent);
  // Rows stay as they are loaded until all of a batch are on their way.
  const auto walk = [&](auto load_row) {
    int64_t index = begin + down;
    for (; index + (kBatch - 1) * height < end; index += kBatch * height) {
      decltype(load_row(index)) rows[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) rows[k] = load_row(index + k * height);
#pragma unroll
      for (int k = 0; k < kBatch; ++k) absorb(rows[k], index + k * height);
    }
    for (; index < end; index += height) absorb(load_row(index), index);
  };
  const T* const from = x + at[0];
  if (!plan.packed) {
    struct Values {
      float values[kPack];
      __device__ float operator[](int i) const { return values[i]; }
    };
    walk([&](int64_t index) {
      const T* const row = from + plan.reduced.offset(index);
      Values values{};
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (column(i) < plan.columns) values.values[i] = widen(row[column(i)]);
      }
      return values;
    });
  } else if (column(0) < plan.columns) {
    walk([&](int64_t index) { return load_raw<kPack>(from + column(0) + plan.reduced.offset(index)); });
  }

  // The rows of threads, in their order.
#pragma unroll
  for (int i = 0; i < kPack; ++i) folded[down * width * kPack + static_cast<int>(column(i) - left)] = states[i];
  __syncthreads();
  const int64_t own = left + threadIdx.x;
  if (static_cast<int>(threadIdx.x) >= width * kPack || own >= plan.columns) return;
  State state = folded[threadIdx.x];
  for (int row = 1; row < height; ++row) state = monoid(state, folded[row * width * kPack + threadIdx.x]);
  target.put(state, at[1] + own * plan.result_step, part, plan.parts);
}

// A warp for each output.
template <class Monoid, class Out>
__global__ void __launch_bounds__(kThreads)
    combine_parts(Monoid monoid, const typename Monoid::State* partial, uint32_t parts, int64_t outputs, Out* result) {
  wait_for_previous();
  const int64_t output = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (output >= outputs) return;
  auto state = Monoid::identity();
  for (uint32_t part = threadIdx.x % kWarp; part < parts; part += kWarp)
    state = monoid(state, partial[output * parts + part]);
  state = warp_reduce(state, monoid);
  if (threadIdx.x % kWarp == 0) result[output] = from_register<Out>(Monoid::result(state));
}

// The smallest power of two from `count`, at most `most`.
uint32_t power_of_two(int64_t count, int64_t most) {
  return static_cast<uint32_t>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(count, 1, most))));
}

// Cuts the reduced axis where `blocks` of them alone would leave the GPU empty, which holds `resident` of them a
// multiprocessor; a part is a multiple of `grain`.
void cut(Plan& plan, const Launch& launch, int64_t blocks, int64_t grain, int64_t resident) {
  const int64_t room = launch.device().multiprocessors * resident;
  const int64_t parts = blocks < room / 2 ? std::min(blocks_for(room, blocks), blocks_for(plan.extent, grain * 4)) : 1;
  plan.part_extent = blocks_for(std::max<int64_t>(1, plan.extent), std::max<int64_t>(1, parts) * grain) * grain;
  plan.parts = static_cast<uint32_t>(std::max<int64_t>(1, blocks_for(plan.extent, plan.part_extent)));
}

// Reduces x over the axes where `reduced` says so, into the row-major result of the others.
template <class Monoid, class T, class Out>
void reduce(const Launch& launch, const Monoid& monoid, const Tensor& x, const std::vector<bool>& reduced,
            Out* result) {
  constexpr int kPack = kWide<T>;
  Shape shapes[2];
  Strides steps[2];
  for (int axis = 0; axis < x.rank(); ++axis) {
    const bool gone = reduced[static_cast<size_t>(axis)];
    shapes[gone].push_back(x.size(axis));
    steps[gone].push_back(x.strides()[axis]);
  }
  Plan plan{};
  plan.kept = Axes<2>(shapes[0], {steps[0], contiguous_strides(shapes[0])});
  plan.reduced = axes_in_memory_order<1>(shapes[1], {steps[1]});
  const int64_t outputs = plan.outputs = plan.kept.count();
  plan.extent = plan.reduced.count();
  if (outputs == 0) return;
  check(outputs <= kMostIndices && (plan.reduced.rank <= 1 || plan.extent <= kMostIndices), "reduce: ", describe(x),
        " is too large for one call: at most ", kMostIndices, " results, and as many elements of each where its axes ",
        "do not merge; reduce it in slices");

  int dense = -1;
  for (int axis = 0; axis < plan.kept.rank; ++axis) dense = plan.kept.steps[axis][0] == 1 ? axis : dense;
  const bool by_columns = dense >= 0 && plan.reduced.inner_step(0) != 1;
  const T* const from = x.data<T>();
  int64_t blocks = 0;
  if (by_columns) {
    plan.columns = plan.kept.extents[dense];
    plan.result_step = plan.kept.steps[dense][1];
    plan.kept = plan.kept.without(dense);
    plan.packed = plan.columns % kPack == 0 && aligned_for<kPack>(from) &&
                  plan.kept.steps_divide(0, plan.kept.rank, kPack) &&
                  plan.reduced.steps_divide(0, plan.reduced.rank, kPack);
    plan.width = power_of_two(blocks_for(plan.columns, kPack), kWarp);
    plan.tiles = static_cast<uint32_t>(blocks_for(plan.columns, plan.width * kPack));
    blocks = plan.kept.count() * plan.tiles;
    cut(plan, launch, blocks, kThreads / plan.width, 4);  // states of columns are many
  } else {
    const bool whole = plan.reduced.rank <= 1 || plan.reduced.inner_extent() % kPack == 0;
    plan.packed = whole && plan.reduced.inner_step(0) == 1 && aligned_for<kPack>(from) &&
                  plan.kept.steps_divide(0, plan.kept.rank, kPack) &&
                  plan.reduced.steps_divide(0, plan.reduced.rank - 1, kPack);
    const int64_t packs = plan.packed ? blocks_for(plan.extent, kPack) : plan.extent;
    plan.width = power_of_two(blocks_for(packs, 4), kThreads);
    if (outputs * plan.width < launch.device().multiprocessors * int64_t{2048})
      plan.width = power_of_two(packs, kThreads);
    blocks = blocks_for(outputs, kThreads / plan.width);
    cut(plan, launch, blocks, plan.width * (plan.packed ? kPack : 1), 8);
    blocks = blocks_for(outputs * plan.parts, kThreads / plan.width);
  }

  Target<Monoid, Out> target{result, nullptr};
  Tensor partial;
  if (plan.parts > 1) {
    const auto bytes = static_cast<int64_t>(sizeof(typename Monoid::State)) * outputs * plan.parts;
    partial = Tensor::empty({bytes}, DType::u8, x.device());
    target.partial = static_cast<typename Monoid::State*>(partial.raw());
  }
  if (by_columns) {
    launch.overlapped(reduce_columns<Monoid, T, Out>, static_cast<unsigned>(blocks * plan.parts), kThreads, plan,
                      monoid, from, target);
  } else {
    launch.overlapped(reduce_rows<Monoid, T, Out>, static_cast<unsigned>(blocks), kThreads, plan, monoid, from, target);
  }
  if (plan.parts > 1) {
    launch.overlapped(combine_parts<Monoid, Out>, static_cast<unsigned>(blocks_for(outputs, kThreads / kWarp)),
                      kThreads, monoid, target.partial, plan.parts, outputs, result);
  }
}

std::vector<bool> only(const Tensor& x, int axis) {
  std::vector<bool> chosen(static_cast<size_t>(x.rank()));
  chosen[static_cast<size_t>(x.shape().resolve(axis))] = true;
  return chosen;
}

}  // namespace

void sum(const Tensor& x, Tensor& result) {
  if (x.shape() == result.shape()) return result.copy_from(x);
  std::vector<bool> reduced;
  for (int axis = 0; axis < x.rank(); ++axis) reduced.push_back(result.size(axis) != x.size(axis));
  dispatch_storage("sum", x.dtype(),
                   [&]<class T>() { reduce<Sum, T>(Launch("sum", x), Sum(), x, reduced, result.data<T>()); });
}

void logsumexp(const Tensor& x, int axis, Tensor& result) {
  dispatch_storage("logsumexp", x.dtype(), [&]<class T>() {
    reduce<LogSumOfAll, T>(Launch("logsumexp", x), LogSumOfAll(), x, only(x, axis), result.data<T>());
  });
}

void arg_extremum(const Tensor& x, int axis, Extremum which, Tensor& index) {
  const char* op = which == Extremum::largest ? "argmax" : "argmin";
  dispatch_storage(op, x.dtype(), [&]<class T>() {
    const First first{which == Extremum::largest ? 1.f : -1.f};
    reduce<First, T>(Launch(op, x), first, x, only(x, axis), index.data<int64_t>());
  });
}

}  // namespace monoid::cuda

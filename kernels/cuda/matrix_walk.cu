// Scans of matrix products of order 16 on CUDA where the chains alone fill the GPU: a warp walks along a chain step by
// step, so that nothing is computed twice and no chain waits for another. Lanes have four columns of two rows each.
// What steps read comes through a ring in shared memory, stages ahead of its use; a row of the state goes round its
// lanes there too. A step takes some 450 cycles, most of them for what shared memory hands out, 128 bytes a cycle.
// Floor: 2 order^2 numbers a step. (The gradient has two products a step: tiles, whose second one waits for nobody, do
// better.)

#include "monoid/kernels/cuda/matrix_scan.cuh"

namespace monoid::cuda {
namespace {

inline constexpr int kOrder = 16, kSize = kOrder * kOrder, kRowsEach = 2, kQuads = kOrder / 4;
inline constexpr int kStages = 4, kSteps = 8;  // of the ring; of a stage
inline constexpr int kSharedFloats = (kStages * kSteps + 2) * kSize;
static_assert(kSize == kWarpLanes * kRowsEach * 4);

struct WalkExtents {
  int time, heads, chains;
  FaultRecord* faults;
};

/// A lane's place: its chain, and its entries there.
struct WalkPlace {
  __device__ explicit WalkPlace(const WalkExtents& extents)
      : batch(static_cast<int>(blockIdx.x) / extents.heads),
        head(static_cast<int>(blockIdx.x) % extents.heads),
        lane(static_cast<int>(threadIdx.x)) {}
  __device__ int row(int r) const { return lane / kQuads + r * kOrder / kRowsEach; }
  /// The first of four columns side by side, and the entry there.
  __device__ int column() const { return lane % kQuads * 4; }
  __device__ int entry(int r) const { return row(r) * kOrder + column(); }

  int batch, head, lane;
};

/// Starts the copies of stage after stage and waits for them: `copy(slot, position)` starts those of one step.
template <class Copy>
struct WalkRing {
  __device__ WalkRing(int positions, const Copy& start_copy) : count(positions), copy(start_copy) {
    for (int stage = 0; stage < kStages - 1; ++stage) start(stage);
  }
  __device__ void start(int stage) const {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int position = stage * kSteps + i;
      if (position < count) copy(slot(position), position);
    }
    commit_copies();
  }
  /// The stage is there, and the one before it is given up for another.
  __device__ void take(int stage) const {
    wait_for_copies<kStages - 2>();
    __syncwarp();
    start(stage + kStages - 1);
  }
  __device__ static int slot(int position) { return position % (kStages * kSteps); }

  int count;
  const Copy& copy;
};

__device__ __forceinline__ void read_row(const float* from, float (&row)[kOrder]) {
#pragma unroll
  for (int k = 0; k < kOrder; k += 4) load<4>(from + k, reinterpret_cast<float(&)[4]>(row[k]));
}

struct MatrixWalk {
  WalkExtents extents;
  Matrices<const float> x, initial;
  Matrices<float> states, final;
};

__global__ void __launch_bounds__(kWarpLanes) walk_kernel(const __grid_constant__ MatrixWalk scan) {
  extern __shared__ float4 shared[];
  const WalkPlace place(scan.extents);
  const int time = scan.extents.time;
  float* const ring = reinterpret_cast<float*>(shared);
  float* const exchange = ring + kStages * kSteps * kSize;  // the state, twice: one to read, one to write

  const float* const x = scan.x.at(place.batch, place.head);
  const auto copy = [&](int slot, int position) {
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r)
      copy_async(ring + slot * kSize + place.entry(r), x + position * scan.x.time_step + place.entry(r));
  };
  const WalkRing<decltype(copy)> stages(time, copy);

  const float* const initial = scan.initial.base ? scan.initial.at(place.batch, place.head) : nullptr;
  float state[kRowsEach][4];
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      state[r][j] = initial ? initial[place.entry(r) + j] : place.row(r) == place.column() + j ? 1 : 0;
    store(exchange + place.entry(r), state[r]);
  }
  float* const to = scan.states.at(place.batch, place.head);
  int turn = 0;
  for (int stage = 0; stage * kSteps < time; ++stage) {
    stages.take(stage);
    bool sound[kRowsEach] = {};
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int position = stage * kSteps + i;
      if (position >= time) break;
      const float* const m = ring + stages.slot(position) * kSize;
      float before[kRowsEach][kOrder];
#pragma unroll
      for (int r = 0; r < kRowsEach; ++r) {
        read_row(exchange + turn * kSize + place.row(r) * kOrder, before[r]);
        if (i == 0) sound[r] = is_finite(before[r]);
#pragma unroll
        for (float& entry : state[r]) entry = 0;
      }
#pragma unroll
      for (int k = 0; k < kOrder; ++k) {
        float entries[4];
        load<4>(m + k * kOrder + place.column(), entries);
#pragma unroll
        for (int r = 0; r < kRowsEach; ++r)
#pragma unroll
          for (int j = 0; j < 4; ++j) state[r][j] = fmaf(before[r][k], entries[j], state[r][j]);
      }
      turn ^= 1;
#pragma unroll
      for (int r = 0; r < kRowsEach; ++r) {
        if (position == 0 && !initial) load<4>(m + place.entry(r), state[r]);  // no state enters: the matrix itself
        store(exchange + turn * kSize + place.entry(r), state[r]);
        store(to + position * scan.states.time_step + place.entry(r), state[r]);
      }
      __syncwarp();
    }
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r)
      if (sound[r] && !is_finite(state[r]))
        report_overflow(scan.extents.faults, place.batch, place.head, min((stage + 1) * kSteps, time) - 1);
  }
  float* const last = scan.final.at(place.batch, place.head);
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r)
#pragma unroll
    for (int j = 0; j < 4; ++j) last[place.entry(r) + j] = state[r][j];
}

/// A chain to two thirds of the multiprocessors: memory then takes as long for a step of all as a warp for its own.
bool walking_pays(const Tensor& x, const Launch& launch) {
  const int64_t chains = x.size(0) * x.size(2);
  return x.dtype() == DType::f32 && x.size(4) == kOrder && x.size(1) > 0 && x.size(1) < (1 << 30) &&
         chains < (int64_t{1} << 31) && 3 * chains >= 2 * launch.device().multiprocessors;
}

WalkExtents extents_of(const Tensor& x, const Launch& launch) {
  return {static_cast<int>(x.size(1)), static_cast<int>(x.size(2)), static_cast<int>(x.size(0) * x.size(2)),
          fault_record(launch.index())};
}

}  // namespace

bool matrix_walk(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final) {
  const Launch launch("matrix_scan", x);
  if (!walking_pays(x, launch)) return false;
  const MatrixWalk scan{extents_of(x, launch), matrices_of<const float>(x), matrices_of<const float>(initial),
                        matrices_of<float>(states), matrices_of<float>(final)};
  if (!in_packs(scan.x) || !in_packs(scan.states)) return false;
  launch.with_shared(walk_kernel, static_cast<unsigned>(scan.extents.chains), kWarpLanes, kSharedFloats * sizeof(float),
                     scan);
  return true;
}

}  // namespace monoid::cuda

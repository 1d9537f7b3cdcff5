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
static_assert(kSize == kWarpLanes * kRowsEach * 4 && kSteps % 2 == 0);

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

__device__ __forceinline__ void read_row(const float* from, float (&row)[kOrder]) {
#pragma unroll
  for (int k = 0; k < kOrder; k += 4) load<4>(from + k, reinterpret_cast<float(&)[4]>(row[k]));
}

struct MatrixWalk {
  WalkExtents extents;
  Matrices<const float> x, initial;
  Matrices<float> states, final;
};

// Starts to bring the matrices of a stage, one of the ring, into shared memory; `from` goes on to those of the next.
__device__ __forceinline__ void start_stage(const WalkPlace& place, const float*& from, int64_t step, int count,
                                            float* to) {
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (i < count) {
#pragma unroll
      for (int r = 0; r < kRowsEach; ++r) copy_async(to + i * kSize + place.entry(r), from + place.entry(r));
    }
    from += step;
  }
  commit_copies();
}

__global__ void __launch_bounds__(kWarpLanes) walk_kernel(const __grid_constant__ MatrixWalk scan) {
  extern __shared__ float4 shared[];
  const WalkPlace place(scan.extents);
  const int time = scan.extents.time;
  float* const ring = reinterpret_cast<float*>(shared);
  const auto stage_at = [&](int stage) { return ring + stage % kStages * (kSteps * kSize); };
  float* const exchange = stage_at(0) + kStages * kSteps * kSize;  // the state, twice: one to read, one to write

  const float* from = scan.x.at(place.batch, place.head);
  const auto start = [&](int stage) {
    start_stage(place, from, scan.x.time_step, time - stage * kSteps, stage_at(stage));
  };
  for (int stage = 0; stage < kStages - 1; ++stage) start(stage);

  const float* const initial = scan.initial.base ? scan.initial.at(place.batch, place.head) : nullptr;
  float state[kRowsEach][4];
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      state[r][j] = initial ? initial[place.entry(r) + j] : place.row(r) == place.column() + j ? 1 : 0;
    store(exchange + place.entry(r), state[r]);
  }
  float* to = scan.states.at(place.batch, place.head) + place.entry(0);
  // One step, from one side of the exchange to the other; the first one where no state enters is the matrix itself.
  const auto advance = [&](const float* m, int turn, bool fresh, bool(&sound)[kRowsEach]) {
    float before[kRowsEach][kOrder];
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r) {
      read_row(exchange + turn * kSize + place.row(r) * kOrder, before[r]);
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
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r) {
      if (fresh) load<4>(m + place.entry(r), state[r]);
      sound[r] = is_finite(before[r]);  // computed where somebody asks
      store(exchange + (turn ^ 1) * kSize + place.entry(r), state[r]);
      store(to + (place.entry(r) - place.entry(0)), state[r]);
    }
    to += scan.states.time_step;
    __syncwarp();
  };
  for (int stage = 0; stage * kSteps < time; ++stage) {
    wait_for_copies<kStages - 2>();
    __syncwarp();
    start(stage + kStages - 1);
    const float* const m = stage_at(stage);
    const int count = min(kSteps, time - stage * kSteps);
    bool sound[kRowsEach], unasked[kRowsEach];
    advance(m, 0, stage == 0 && !initial, sound);
    if (count == kSteps) {
#pragma unroll
      for (int i = 1; i < kSteps; ++i) advance(m + i * kSize, i % 2, false, unasked);
    } else {
      for (int i = 1; i < count; ++i) advance(m + i * kSize, i % 2, false, unasked);
    }
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r)
      if (sound[r] && !is_finite(state[r]))
        report_overflow(scan.extents.faults, place.batch, place.head, stage * kSteps + count - 1);
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

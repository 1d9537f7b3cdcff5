// Scans of matrix products of order 16 on CUDA where the chains alone fill the GPU: a warp walks along a chain step by
// step, so that nothing is computed twice and no chain waits for another. Lanes have four columns of two rows each.
// What steps read comes through a ring in shared memory, stages ahead of its use; a row of the state goes round its
// lanes there too. A step takes some 430 cycles: 128 multiply-adds a lane, and what shared memory hands out meanwhile.
// In the gradient a second warp turns the adjoints of the stage before into gradients. Floor: 2 order^2 numbers a step,
// 4 in the gradient.

#include "monoid/kernels/cuda/matrix_scan.cuh"

namespace monoid::cuda {
namespace {

inline constexpr int kOrder = 16, kSize = kOrder * kOrder, kRowsEach = 2, kQuads = kOrder / 4;
inline constexpr int kStages = 4;  // of the ring
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
        lane(static_cast<int>(threadIdx.x) % kWarpLanes) {}
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

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardWalk {
  WalkExtents extents;
  Matrices<const float> x, initial;
  Matrices<float> states, final;
};

inline constexpr int kSteps = 8;  // of a stage
inline constexpr int kForwardFloats = (kStages * kSteps + 2) * kSize;
static_assert(kSteps % 2 == 0);

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

__global__ void __launch_bounds__(kWarpLanes) forward_walk(const __grid_constant__ ForwardWalk scan) {
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

// ------------------------------------------------------------------------------------------------------------ gradient

struct BackwardWalk {
  WalkExtents extents;
  Matrices<const float> x, states, cotangents, initial, final_cotangent;
  Matrices<float> x_gradient, initial_gradient;
};

inline constexpr int kBackwardSteps = 4;       // of a stage
inline constexpr int kSlotFloats = 3 * kSize;  // what a step reads: X, dH, and the state that entered
inline constexpr int kBackwardFloats = (kStages * kSlotFloats + 2 * kSize) * kBackwardSteps;

/// X in shared memory: its rows are read four at a time, so their quads change places by the row.
__device__ __forceinline__ int swizzled(int row, int quad) { return row * kOrder + ((quad ^ (row / 4)) & 3) * 4; }

// With the carry C of what later steps send back: B = dH + C, C = B transpose(X) by the first warp, and, a stage later,
// dX = transpose(H_before) B by the second.
__global__ void __launch_bounds__(2 * kWarpLanes) backward_walk(const __grid_constant__ BackwardWalk scan) {
  extern __shared__ float4 shared[];
  const WalkPlace place(scan.extents);
  const int time = scan.extents.time, stages = (time + kBackwardSteps - 1) / kBackwardSteps;
  const bool carries = threadIdx.x < kWarpLanes;
  float* const ring = reinterpret_cast<float*>(shared);
  const auto stage_at = [&](int stage) { return ring + stage % kStages * (kBackwardSteps * kSlotFloats); };
  float* const adjoints = ring + kStages * kBackwardSteps * kSlotFloats;
  const auto adjoints_at = [&](int stage) { return adjoints + stage % 2 * (kBackwardSteps * kSize); };
  const auto at = [&](const auto& of) { return of.base ? of.at(place.batch, place.head) : nullptr; };
  const auto last_of = [&](const Matrices<const float>& of) {
    return of.base ? of.at(place.batch, place.head, time - 1) + threadIdx.x * 4 : nullptr;
  };

  const float *x = last_of(scan.x), *cotangent = last_of(scan.cotangents), *const initial = at(scan.initial);
  const float* states = last_of(scan.states);
  const int copied = static_cast<int>(threadIdx.x) * 4, copied_row = copied / kOrder, copied_quad = copied / 4 % kQuads;
  const auto start = [&](int stage) {
    float* to = stage_at(stage);
#pragma unroll
    for (int i = 0; i < kBackwardSteps; ++i) {
      const int left = time - stage * kBackwardSteps - i;  // steps, this one too
      states -= scan.states.time_step;
      if (left > 0) {
        copy_async(to + swizzled(copied_row, copied_quad), x);
        if (cotangent) copy_async(to + kSize + copied, cotangent);
        float* const before = to + 2 * kSize + copied;
        if (left > 1) {
          copy_async(before, states);
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j)
            before[j] = initial ? initial[copied + j] : copied_row * (kOrder + 1) == copied + j ? 1 : 0;
        }
      }
      x -= scan.x.time_step;
      if (cotangent) cotangent -= scan.cotangents.time_step;
      to += kSlotFloats;
    }
    commit_copies();
  };
  for (int stage = 0; stage < kStages - 2; ++stage) start(stage);

  const float* const final_cotangent = at(scan.final_cotangent);
  float carry[kRowsEach][4];
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r)
#pragma unroll
    for (int j = 0; j < 4; ++j) carry[r][j] = final_cotangent ? final_cotangent[place.entry(r) + j] : 0;
  float* to = at(scan.x_gradient) + (time - 1) * scan.x_gradient.time_step + place.entry(0);

  const auto step_back = [&](const float* m, float* adjoint) {
    float rows[kRowsEach][kOrder];
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r) {
      if (scan.cotangents.base) {
        float own[4];
        load<4>(m + kSize + place.entry(r), own);
#pragma unroll
        for (int j = 0; j < 4; ++j) carry[r][j] += own[j];
      }
      store(adjoint + place.entry(r), carry[r]);
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r) {
      read_row(adjoint + place.row(r) * kOrder, rows[r]);
#pragma unroll
      for (float& entry : carry[r]) entry = 0;
    }
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float entries[4];
        load<4>(m + swizzled(place.column() + j, quad), entries);
#pragma unroll
        for (int r = 0; r < kRowsEach; ++r)
#pragma unroll
          for (int n = 0; n < 4; ++n) carry[r][j] = fmaf(rows[r][quad * 4 + n], entries[n], carry[r][j]);
      }
    }
  };
  const auto make_gradient = [&](const float* before, const float* adjoint) {
    float gradient[kRowsEach][4] = {};
#pragma unroll
    for (int k = 0; k < kOrder; ++k) {
      float entries[4];
      load<4>(adjoint + k * kOrder + place.column(), entries);
#pragma unroll
      for (int r = 0; r < kRowsEach; ++r) {
        const float left = before[k * kOrder + place.row(r)];
#pragma unroll
        for (int j = 0; j < 4; ++j) gradient[r][j] = fmaf(left, entries[j], gradient[r][j]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsEach; ++r) store(to + (place.entry(r) - place.entry(0)), gradient[r]);
    to -= scan.x_gradient.time_step;
  };
  const auto for_each_step = [&](int stage, const auto& body) {
    const int count = min(kBackwardSteps, time - stage * kBackwardSteps);
    if (count == kBackwardSteps) {
#pragma unroll
      for (int i = 0; i < kBackwardSteps; ++i) body(stage_at(stage) + i * kSlotFloats, adjoints_at(stage) + i * kSize);
    } else {
      for (int i = 0; i < count; ++i) body(stage_at(stage) + i * kSlotFloats, adjoints_at(stage) + i * kSize);
    }
  };
  for (int stage = 0; stage <= stages; ++stage) {
    wait_for_copies<kStages - 3>();
    __syncthreads();
    start(stage + kStages - 2);
    if (carries && stage < stages) for_each_step(stage, step_back);
    if (!carries && stage > 0)
      for_each_step(stage - 1, [&](const float* m, const float* adjoint) { make_gradient(m + 2 * kSize, adjoint); });
  }
  if (!carries || !scan.initial_gradient.base) return;
  float* const first = at(scan.initial_gradient);
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r)
#pragma unroll
    for (int j = 0; j < 4; ++j) first[place.entry(r) + j] = carry[r][j];
}

// --------------------------------------------------------------------------------------------------------------- host

/// A step of a walk takes 245 ns, of one chain or of two on each multiprocessor; tiles take 0.95 ns a matrix
/// (matrix_scan.cu, both on an H100; twice that in the gradient), so they are faster below 7 chains to 4
/// multiprocessors.
bool walking_pays(const Tensor& x, const Launch& launch) {
  const int64_t chains = x.size(0) * x.size(2);
  return x.dtype() == DType::f32 && x.size(4) == kOrder && x.size(1) > 0 && x.size(1) < (1 << 30) &&
         chains < (int64_t{1} << 31) && 4 * chains >= 7 * launch.device().multiprocessors;
}

WalkExtents extents_of(const Tensor& x, const Launch& launch) {
  return {static_cast<int>(x.size(1)), static_cast<int>(x.size(2)), static_cast<int>(x.size(0) * x.size(2)),
          fault_record(launch.index())};
}

}  // namespace

bool matrix_walk(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final) {
  const Launch launch("matrix_scan", x);
  if (!walking_pays(x, launch)) return false;
  const ForwardWalk scan{extents_of(x, launch), matrices_of<const float>(x), matrices_of<const float>(initial),
                         matrices_of<float>(states), matrices_of<float>(final)};
  if (!in_packs(scan.x) || !in_packs(scan.states)) return false;
  launch.with_shared(forward_walk, static_cast<unsigned>(scan.extents.chains), kWarpLanes,
                     kForwardFloats * sizeof(float), scan);
  return true;
}

bool matrix_walk_gradient(const Tensor& x, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                          const Tensor& final_cotangent, Tensor& x_gradient, Tensor& initial_gradient) {
  const Launch launch("matrix_scan", x);
  if (!walking_pays(x, launch)) return false;
  const BackwardWalk scan{extents_of(x, launch),
                          matrices_of<const float>(x),
                          matrices_of<const float>(states),
                          matrices_of<const float>(states_cotangent),
                          matrices_of<const float>(initial),
                          matrices_of<const float>(final_cotangent),
                          matrices_of<float>(x_gradient),
                          matrices_of<float>(initial_gradient)};
  if (!in_packs(scan.x) || !in_packs(scan.states) || !in_packs(scan.cotangents) || !in_packs(scan.x_gradient))
    return false;
  launch.with_shared(backward_walk, static_cast<unsigned>(scan.extents.chains), 2 * kWarpLanes,
                     kBackwardFloats * sizeof(float), scan);
  return true;
}

}  // namespace monoid::cuda

// The adjoint of a scan of matrix products on CUDA, over time turned round: with the carry C of what later steps send
// back, B_t = dH_t + C, dX_t = transpose(H_{t-1}) B_t, C = B_t transpose(X_t). Tiles, segments and fold are those of
// matrix_scan.cu; a segment's summary is an affine map C -> C K + S. Adjoints take the place of the cotangents in
// shared memory, and gradients theirs. Floor: 4 order^2 numbers a step, and four times order^3 multiply-adds.
//
// For form ldu, X = lower upper is never made; dX is turned into dM where it lies: d lower = dX transpose(upper),
// d upper = transpose(lower) dX.

#include "monoid/kernels/cuda/matrix_scan.cuh"

namespace monoid::cuda {
namespace {

template <class T>
struct BackwardScan {
  TilePlan plan;
  Matrices<const T> x, states, cotangents;
  Matrices<const float> initial, final_cotangent;
  Matrices<T> x_gradient;
  Matrices<float> initial_gradient;
};

/// Columns of the state that entered a step, one for each row of the gradient that this thread makes.
template <class T, int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> columns_before(const BackwardScan<T>& scan,
                                                                    const TilePlace<kRows, kOrder>& place, int time) {
  if (time == 0 && !scan.initial.base) return place.owner.identity();
  MatrixRows<kRows, kOrder> columns;
  const auto read = [&](const auto* h) {
#pragma unroll
    for (int i = 0; i < kOrder; ++i)
#pragma unroll
      for (int r = 0; r < kRows; ++r) columns.row[r][i] = widen(h[i * kOrder + place.owner.row(r)]);
  };
  if (time > 0) {
    read(scan.states.at(place.batch, place.head, time - 1));
  } else {
    read(scan.initial.at(place.batch, place.head));
  }
  return columns;
}

/// Rows of dM from the same rows of dX and all of dX in shared memory; `m` is packed LDU. The threads of a warp come
/// together.
template <int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> ldu_gradient(const TilePlace<kRows, kOrder>& place,
                                                                  const MatrixRows<kRows, kOrder>& x_rows,
                                                                  const float* x_gradient, const float* m,
                                                                  bool exists) {
  constexpr int kPack = kRowPack<kOrder>;
  const auto& owner = place.owner;
  MatrixRows<kRows, kOrder> lower, upper;
  lower.clear();
  upper.clear();
  if (exists) {
#pragma unroll
    for (int k = 0; k < kOrder; ++k) {
      float left[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) left[r] = k >= owner.row(r) ? m[k * kOrder + owner.row(r)] : 0;
#pragma unroll
      for (int first = 0; first < kOrder; first += kPack) {
        float entries[kPack], gradients[kPack];
        load<kPack>(x_gradient + k * kOrder + first, gradients);
        if (first + kPack > k) load<kPack>(m + k * kOrder + first, entries);
#pragma unroll
        for (int j = 0; j < kPack; ++j) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            upper.row[r][first + j] = fmaf(left[r], gradients[j], upper.row[r][first + j]);
            if (first + j >= k) lower.row[r][k] = fmaf(x_rows.row[r][first + j], entries[j], lower.row[r][k]);
          }
        }
      }
    }
  }
  MatrixRows<kRows, kOrder> result;
  float diagonal[kRows], sum = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = owner.row(r);
    diagonal[r] = 0;
#pragma unroll
    for (int j = 0; j < kOrder; ++j) {
      if (j == row) diagonal[r] = lower.row[r][j] + upper.row[r][j];
      result.row[r][j] = j < row ? lower.row[r][j] : upper.row[r][j];
    }
    diagonal[r] = exists ? 0.5f * diagonal[r] * m[row * (kOrder + 1)] : 0;
    sum += diagonal[r];
  }
  const float mean = place.sum_of_group(sum) / kOrder;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int j = 0; j < kOrder; ++j)
      if (j == owner.row(r)) result.row[r][j] = diagonal[r] - mean;
  return result;
}

template <class T, int kOrder, MatrixForm kForm>
__global__ void __launch_bounds__(kTileThreads) backward_kernel(BackwardScan<T> scan) {
  constexpr int kRows = rows_per_thread(kOrder), kStride = kOrder * kOrder + 4;
  using Rows = MatrixRows<kRows, kOrder>;
  using Place = TilePlace<kRows, kOrder>;
  extern __shared__ float4 shared[];
  const Place place(scan.plan, take_tile(scan.plan));
  const auto& owner = place.owner;
  float* const matrices = reinterpret_cast<float*>(shared);
  float* const adjoints = matrices + place.matrices();
  float* const maps = adjoints + place.matrices();  // K of each segment, then the carry that enters it
  float* const sums = maps + Place::kSegments * kStride;
  const int own = place.segment * place.segment_stride(), steps = place.steps_of(place.segment);

  place.load(scan.x, matrices);
  if (scan.cotangents.base) {
    place.load(scan.cotangents, adjoints);
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < place.matrices(); i += kTileThreads) adjoints[i] = 0;
  }
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  if constexpr (kForm == MatrixForm::ldu) place.pack_ldu(matrices);

  const auto add = [](Rows& rows, const Rows& other) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kOrder; ++j) rows.row[r][j] += other.row[r][j];
  };
  if (steps > 0) {
    // Rows of K and of S together: they meet the same matrices.
    MatrixRows<2 * kRows, kOrder> both;
    const Rows identity = owner.identity();
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kOrder; ++j) both.row[r][j] = identity.row[r][j], both.row[kRows + r][j] = 0;
    for (int i = 0; i < steps; ++i) {
      const Rows cotangent = owner.read(adjoints + own + i * Place::kSize);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int j = 0; j < kOrder; ++j) both.row[kRows + r][j] += cotangent.row[r][j];
      both = retreat<kForm>(both, matrices + own + i * Place::kSize);
    }
    Rows map, sum;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kOrder; ++j) map.row[r][j] = both.row[r][j], sum.row[r][j] = both.row[kRows + r][j];
    owner.write(map, maps + place.segment * kStride);
    owner.write(sum, sums + place.segment * kStride);
  }
  __syncthreads();

  float* const carries = sums + Place::kSegments * kStride;
  if (place.tile > 0) {
    place.receive(carries);
  } else {
    place.get(scan.final_cotangent.base ? scan.final_cotangent.at(place.batch, place.head) : nullptr, 0, carries);
  }
  const float* const leaving = place.fold(maps, sums, kStride, carries, false, [&](Rows rows, int segment) {
    for (int i = 0; i < place.steps_of(segment); ++i) {
      const int at = segment * place.segment_stride() + i * Place::kSize;
      add(rows, owner.read(adjoints + at));
      rows = retreat<kForm>(rows, matrices + at);
    }
    return rows;
  });
  if (place.tile + 1 < scan.plan.tiles) {
    place.send(leaving);
  } else if (scan.initial_gradient.base) {
    place.put(leaving, scan.initial_gradient.at(place.batch, place.head));
  }
  __syncthreads();

  if (steps > 0) {
    Rows carry = owner.read(maps + place.segment * kStride);
    for (int i = 0; i < steps; ++i) {
      const int at = own + i * Place::kSize;
      add(carry, owner.read(adjoints + at));
      owner.write(carry, adjoints + at);
      if (i + 1 < steps) carry = retreat<kForm>(carry, matrices + at);
    }
  }
  Rows columns;
  const int first = place.segment * place.steps();
  if (steps > 0) columns = columns_before(scan, place, place.time_of(first));
  __syncwarp();
  for (int i = 0; i < place.steps(); ++i) {
    const int at = own + i * Place::kSize;
    const bool exists = i < steps;
    Rows gradient;
    if (exists) {
      const Rows before = columns;
      if (i + 1 < steps) columns = columns_before(scan, place, place.time_of(first + i + 1));
      gradient = multiply(before, adjoints + at);
    }
    __syncwarp();
    if (exists) owner.write(gradient, adjoints + at);
    if constexpr (kForm == MatrixForm::ldu) {
      __syncwarp();
      gradient = ldu_gradient(place, gradient, adjoints + at, matrices + at, exists);
      __syncwarp();
      if (exists) owner.write(gradient, adjoints + at);
    }
  }
  __syncthreads();
  place.save(adjoints, scan.x_gradient);
}

}  // namespace

void matrix_scan_gradient(const Tensor& x, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                          const Tensor& final_cotangent, Tensor& x_gradient, Tensor& initial_gradient, MatrixForm form,
                          TimeCut cut) {
  if (cut == TimeCut::allowed && form == MatrixForm::plain &&
      matrix_walk_gradient(x, initial, states, states_cotangent, final_cotangent, x_gradient, initial_gradient))
    return;
  dispatch_storage("matrix_scan", x.dtype(), [&]<class T>() {
    const bool found = cut == TimeCut::allowed && dispatch_order(x.size(4), [&]<int kOrder>() {
                         const Launch launch("matrix_scan", x);
                         BackwardScan<T> scan{{},
                                              matrices_of<const T>(x),
                                              matrices_of<const T>(states),
                                              matrices_of<const T>(states_cotangent),
                                              matrices_of<const float>(initial),
                                              matrices_of<const float>(final_cotangent),
                                              matrices_of<T>(x_gradient),
                                              matrices_of<float>(initial_gradient)};
                         const RoomyPlan room = plan_tiles<kOrder>(launch, x, 2, true);
                         scan.plan = room.plan;
                         scan.plan.packed = in_packs(scan.x) && in_packs(scan.cotangents) && in_packs(scan.x_gradient);
                         constexpr int kRows = rows_per_thread(kOrder);
                         const size_t floats = 2 * tile_floats<kRows, kOrder>(scan.plan) +
                                               (2 * TilePlace<kRows, kOrder>::kSegments + 2) * (kOrder * kOrder + 4);
                         launch.with_shared(form == MatrixForm::plain ? backward_kernel<T, kOrder, MatrixForm::plain>
                                                                      : backward_kernel<T, kOrder, MatrixForm::ldu>,
                                            static_cast<unsigned>(scan.plan.tiles * scan.plan.chains), kTileThreads,
                                            floats * sizeof(float), scan);
                       });
    if (!found)
      any_matrix_scan_gradient(x, initial, states, states_cotangent, final_cotangent, x_gradient, initial_gradient,
                               form, cut);
  });
}

}  // namespace monoid::cuda

// The adjoint of a scan of matrix products on CUDA, over time turned round: with the carry C of what later steps send
// back, B_t = dH_t + C, dX_t = transpose(H_{t-1}) B_t, C = B_t transpose(X_t). Tiles, segments and fold are those of
// matrix_scan.cu; a segment's summary is an affine map C -> C K + S. Adjoints take the place of the cotangents in
// shared memory, and gradients theirs; H takes that of X. Floor: 4 order^2 numbers a step, and four times order^3
// multiply-adds.
//
// For form ldu, X = lower upper is never made; M comes back, from the L2 cache, to turn dX into dM where it lies:
// d lower = dX transpose(upper), d upper = transpose(lower) dX.

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

/// Rows of dM from dX in shared memory; `m` is packed LDU. The threads of a warp come together.
template <class Place>
__device__ __forceinline__ typename Place::Rows ldu_gradient(const Place& place, const float* x_gradient,
                                                             const float* m, bool exists) {
  constexpr int kRows = Place::kRows, kOrder = Place::kOrder, kPack = kRowPack<kOrder>;
  const auto& owner = place.owner;
  typename Place::Rows lower, upper;
  lower.clear();
  upper.clear();
  if (exists) {
    const auto x_rows = owner.read(x_gradient);
#pragma unroll
    for (int k = 0; k < kOrder; ++k) {
      float left[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) left[r] = k >= owner.row(r) ? m[entry_at<kOrder>(k, owner.row(r))] : 0;
#pragma unroll
      for (int first = 0; first < kOrder; first += kPack) {
        float entries[kPack], gradients[kPack];
        load<kPack>(x_gradient + entry_at<kOrder>(k, first), gradients);
        if (first + kPack > k) load<kPack>(m + entry_at<kOrder>(k, first), entries);
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
  typename Place::Rows result;
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
    diagonal[r] = exists ? 0.5f * diagonal[r] * m[entry_at<kOrder>(row, row)] : 0;
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
__global__ void __launch_bounds__(tile_shape(kOrder, true).threads) backward_kernel(BackwardScan<T> scan) {
  using Place = TilePlace<kOrder, true>;
  using Rows = typename Place::Rows;
  constexpr int kRows = Place::kRows;
  extern __shared__ float4 shared[];
  const Place place(scan.plan, take_tile(scan.plan));
  const auto& owner = place.owner;
  float* const matrices = reinterpret_cast<float*>(shared);
  float* const adjoints = matrices + place.matrices();
  float* const maps = adjoints + place.matrices();               // K of each segment
  float* const sums = maps + Place::kSegments * Place::kStride;  // S of each, then the carry that enters it
  const int own = place.segment * place.segment_stride(), steps = place.steps_of(place.segment);

  place.load(scan.x, matrices);
  if (scan.cotangents.base) {
    place.load(scan.cotangents, adjoints);
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < place.matrices(); i += Place::kThreads) adjoints[i] = 0;
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
    const auto put = [&](int half, const Rows& rows) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int j = 0; j < kOrder; ++j) both.row[half * kRows + r][j] = rows.row[r][j];
    };
    const Rows cotangent = owner.read(adjoints + own);
    if constexpr (kForm == MatrixForm::plain) {
      put(0, owner.read_columns(matrices + own));
      put(1, retreat<kForm>(cotangent, matrices + own));
    } else {
      put(0, owner.identity());
      put(1, cotangent);
      both = retreat<kForm>(both, matrices + own);
    }
    for (int i = 1; i < steps; ++i) {
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
    owner.write(map, maps + place.segment * Place::kStride);
    owner.write(sum, sums + place.segment * Place::kStride);
  }
  __syncthreads();

  typename Place::Carry carry;
  bool lost = false;
  if (Place::Carry::exists()) {
    if (place.tile > 0) {
      carry = place.receive();
    } else {
      carry.get(scan.final_cotangent.base ? scan.final_cotangent.at(place.batch, place.head) : nullptr, 0);
    }
    carry = place.fold(maps, sums, carry, false, lost, [&](int segment, const auto& entering, const auto&) {
      entering.write(sums + segment * Place::kStride);
    });
  }
  if (__syncthreads_or(lost)) {
    // Step by step, where a map has made rows leave the range of f32 that may stay in it.
    if (static_cast<int>(threadIdx.x) < Place::kLanes) {
      Rows rows = owner.read(sums);
      for (int position = 0; position < place.count; ++position) {
        if (position % place.steps() == 0) owner.write(rows, sums + position / place.steps() * Place::kStride);
        add(rows, owner.read(adjoints + place.offset(position)));
        rows = retreat<kForm>(rows, matrices + place.offset(position));
      }
      owner.write(rows, maps);
    }
    __syncthreads();
    carry.read(maps);
  }
  if (Place::Carry::exists()) {
    if (place.tile + 1 < scan.plan.tiles) {
      place.send(carry);
    } else if (scan.initial_gradient.base) {
      carry.put(scan.initial_gradient.at(place.batch, place.head));
    }
  }

  if (steps > 0) {
    Rows rows = owner.read(sums + place.segment * Place::kStride);
    for (int i = 0; i < steps; ++i) {
      const int at = own + i * Place::kSize;
      add(rows, owner.read(adjoints + at));
      owner.write(rows, adjoints + at);
      if (i + 1 < steps) rows = retreat<kForm>(rows, matrices + at);
    }
  }
  // The matrices have been met: the states that entered them take their place.
  __syncthreads();
  place.load(scan.states, matrices, -1);
  commit_copies();
  if (Place::Carry::exists() && place.count > 0 && place.time_of(place.count - 1) == 0) {
    carry.get(scan.initial.base ? scan.initial.at(place.batch, place.head) : nullptr, 1);
    carry.write(matrices + place.offset(place.count - 1));
  }
  wait_for_copies<0>();
  __syncthreads();
  for (int i = 0; i < place.steps(); ++i) {
    const int at = own + i * Place::kSize;
    Rows gradient;
    if (i < steps) gradient = multiply(owner.read_columns(matrices + at), adjoints + at);
    __syncwarp();
    if (i < steps) owner.write(gradient, adjoints + at);
  }
  if constexpr (kForm == MatrixForm::ldu) {
    __syncthreads();
    place.load(scan.x, matrices);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    place.pack_ldu(matrices);
    for (int i = 0; i < place.steps(); ++i) {
      const int at = own + i * Place::kSize;
      const bool exists = i < steps;
      const Rows gradient = ldu_gradient(place, adjoints + at, matrices + at, exists);
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
                         using Place = TilePlace<kOrder, true>;
                         const RoomyPlan room = plan_tiles<Place>(launch, x, 2);
                         scan.plan = room.plan;
                         scan.plan.packed = in_packs(scan.x) && in_packs(scan.states) && in_packs(scan.cotangents) &&
                                            in_packs(scan.x_gradient);
                         launch.with_shared(form == MatrixForm::plain ? backward_kernel<T, kOrder, MatrixForm::plain>
                                                                      : backward_kernel<T, kOrder, MatrixForm::ldu>,
                                            static_cast<unsigned>(scan.plan.tiles * scan.plan.chains), Place::kThreads,
                                            room.shared_bytes, scan);
                       });
    if (!found)
      any_matrix_scan_gradient(x, initial, states, states_cotangent, final_cotangent, x_gradient, initial_gradient,
                               form, cut);
  });
}

}  // namespace monoid::cuda

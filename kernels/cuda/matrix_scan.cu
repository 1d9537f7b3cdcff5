// Scans of matrix products on CUDA: H_t = H_{t-1} X_t. A tile of a chain's matrices waits in shared memory while it is
// met twice: each segment's product from the identity, the state folded through the products in order, each segment
// replayed from the state that enters it, its states written over its matrices. So memory is read and written once.
// Floor: 2 order^2 numbers a step; twice order^3 multiply-adds stay below that to order 16 and a little above.
//
// The matrix of form ldu is never made: rows go through its triangular factors instead, which costs the same.

#include "monoid/kernels/cuda/matrix_scan.cuh"

namespace monoid::cuda {
namespace {

template <class T>
struct ForwardScan {
  TilePlan plan;
  Matrices<const T> x;
  Matrices<const float> initial;
  Matrices<T> states;
  Matrices<float> final;
};

/// The first step where no state enters: the matrix itself.
template <MatrixForm kForm, int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> begin(const RowOwner<kRows, kOrder>& owner, const float* m) {
  if constexpr (kForm == MatrixForm::plain) {
    return owner.read(m);
  } else {
    return advance<kForm>(owner.identity(), m);
  }
}

template <class T, int kOrder, MatrixForm kForm>
__global__ void __launch_bounds__(kTileThreads) forward_kernel(ForwardScan<T> scan) {
  constexpr int kRows = rows_per_thread(kOrder), kStride = kOrder * kOrder + 4;
  using Rows = MatrixRows<kRows, kOrder>;
  using Place = TilePlace<kRows, kOrder>;
  extern __shared__ float4 shared[];
  const Place place(scan.plan, take_tile(scan.plan));
  const auto& owner = place.owner;
  float* const matrices = reinterpret_cast<float*>(shared);
  float* const products = matrices + place.matrices();  // then the states that enter the segments
  float* const own = matrices + place.segment * place.segment_stride();
  const int steps = place.steps_of(place.segment);
  const bool fresh = place.tile == 0 && !scan.initial.base;

  place.load(scan.x, matrices);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  if constexpr (kForm == MatrixForm::ldu) place.pack_ldu(matrices);

  if (steps > 0) {
    Rows product = begin<kForm>(owner, own);
    for (int i = 1; i < steps; ++i) product = advance<kForm>(product, own + i * Place::kSize);
    owner.write(product, products + place.segment * kStride);
  }
  __syncthreads();

  float* const states = products + Place::kSegments * kStride;
  if (place.tile > 0) {
    place.receive(states);
  } else {
    place.get(fresh ? nullptr : scan.initial.at(place.batch, place.head), 1, states);
  }
  const float* const leaving = place.fold(products, nullptr, kStride, states, fresh, [&](Rows rows, int segment) {
    for (int i = 0; i < place.steps_of(segment); ++i)
      rows = advance<kForm>(rows, matrices + segment * place.segment_stride() + i * Place::kSize);
    return rows;
  });
  if (place.tile + 1 < scan.plan.tiles) {
    place.send(leaving);
  } else {
    place.put(leaving, scan.final.at(place.batch, place.head));
  }
  __syncthreads();

  Rows state;
  if (steps > 0) state = owner.read(products + place.segment * kStride);
  bool sound = true;
#pragma unroll
  for (int r = 0; r < kRows; ++r) sound = sound && (steps == 0 || is_finite(state.row[r]));
  for (int i = 0; i < place.steps(); ++i) {
    float* const m = own + i * Place::kSize;
    if (i < steps) state = fresh && place.segment == 0 && i == 0 ? begin<kForm>(owner, m) : advance<kForm>(state, m);
    __syncwarp();
    if (i < steps) owner.write(state, m);
  }
  if (steps > 0 && sound) {
    bool broken = false;
#pragma unroll
    for (int r = 0; r < kRows; ++r) broken = broken || !is_finite(state.row[r]);
    if (broken)
      report_overflow(scan.plan.faults, place.batch, place.head,
                      place.time_of(place.segment * place.steps() + steps - 1));
  }
  __syncthreads();
  place.save(matrices, scan.states);
}

}  // namespace

void matrix_scan(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final, MatrixForm form, TimeCut cut) {
  if (cut == TimeCut::allowed && form == MatrixForm::plain && matrix_walk(x, initial, states, final)) return;
  dispatch_storage("matrix_scan", x.dtype(), [&]<class T>() {
    const bool found = cut == TimeCut::allowed && dispatch_order(x.size(4), [&]<int kOrder>() {
                         const Launch launch("matrix_scan", x);
                         ForwardScan<T> scan{{},
                                             matrices_of<const T>(x),
                                             matrices_of<const float>(initial),
                                             matrices_of<T>(states),
                                             matrices_of<float>(final)};
                         const RoomyPlan room = plan_tiles<kOrder>(launch, x, 1, false);
                         scan.plan = room.plan;
                         scan.plan.packed = in_packs(scan.x) && in_packs(scan.states);
                         constexpr int kRows = rows_per_thread(kOrder);
                         const size_t floats = tile_floats<kRows, kOrder>(scan.plan) +
                                               (TilePlace<kRows, kOrder>::kSegments + 2) * (kOrder * kOrder + 4);
                         launch.with_shared(form == MatrixForm::plain ? forward_kernel<T, kOrder, MatrixForm::plain>
                                                                      : forward_kernel<T, kOrder, MatrixForm::ldu>,
                                            static_cast<unsigned>(scan.plan.tiles * scan.plan.chains), kTileThreads,
                                            floats * sizeof(float), scan);
                       });
    if (!found) any_matrix_scan(x, initial, states, final, form, cut);
  });
}

}  // namespace monoid::cuda

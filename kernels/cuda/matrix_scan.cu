// Scans of matrix products on CUDA: H_t = H_{t-1} X_t. A tile of a chain's matrices waits in shared memory while it is
// met twice: each segment's product from the identity, the state folded through the products in order, each segment
// replayed up to its last state, which the fold has left. States are written over their matrices. So memory is read and
// written once.
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

/// Step by step through the tile, where a product of steps has made rows leave the range of f32 that may stay in it.
template <MatrixForm kForm, class T, class Place>
__device__ void walk(const ForwardScan<T>& scan, const Place& place, float* matrices, const float* entering,
                     bool fresh) {
  constexpr int kLanes = Place::kLanes;
  place.load(scan.x, matrices);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  if constexpr (kForm == MatrixForm::ldu) place.pack_ldu(matrices);
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < kLanes) {
    auto rows = place.owner.read(entering);
    for (int position = 0; position < place.count; ++position) {
      float* const m = matrices + place.offset(position);
      rows = fresh && position == 0 ? begin<kForm>(place.owner, m) : advance<kForm>(rows, m);
      __syncwarp(~0u >> (kWarpLanes - kLanes));
      if ((position + 1) % place.steps() == 0 || position + 1 == place.count) place.owner.write(rows, m);
    }
  }
  __syncthreads();
}

template <class T, int kOrder, MatrixForm kForm>
__global__ void __launch_bounds__(tile_shape(kOrder, false).threads) forward_kernel(ForwardScan<T> scan) {
  using Place = TilePlace<kOrder, false>;
  using Rows = typename Place::Rows;
  extern __shared__ float4 shared[];
  const Place place(scan.plan, take_tile(scan.plan));
  const auto& owner = place.owner;
  float* const matrices = reinterpret_cast<float*>(shared);
  float* const products = matrices + place.matrices();  // then the state that enters the tile
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
    owner.write(product, products + place.segment * Place::kStride);
  }
  __syncthreads();

  // The state that leaves a segment is its last: it takes its place at once.
  const auto last_of = [&](int segment) {
    return matrices + place.offset(min((segment + 1) * place.steps(), place.count) - 1);
  };
  typename Place::Carry entering, state;
  bool lost = false;
  if (Place::Carry::exists()) {
    if (place.tile > 0) {
      entering = place.receive();
    } else {
      entering.get(fresh ? nullptr : scan.initial.at(place.batch, place.head), 1);
    }
    state = place.fold(products, nullptr, entering, fresh, lost,
                       [&](int segment, const auto&, const auto& leaving) { leaving.write(last_of(segment)); });
  }
  if (__syncthreads_or(lost)) {
    if (Place::Carry::exists()) entering.write(products);
    walk<kForm>(scan, place, matrices, products, fresh);
    state.read(last_of(place.segments() - 1));
  }
  if (Place::Carry::exists()) {
    if (place.tile + 1 < scan.plan.tiles) {
      place.send(state);
    } else {
      state.put(scan.final.at(place.batch, place.head));
    }
    entering.write(products);
  }
  __syncthreads();

  Rows rows;
  if (steps > 0) rows = owner.read(place.segment > 0 ? last_of(place.segment - 1) : products);
  const bool sound = steps > 0 && rows.finite();
  for (int i = 0; i + 1 < place.steps(); ++i) {
    float* const m = own + i * Place::kSize;
    const bool more = i + 1 < steps;
    if (more) rows = fresh && place.segment == 0 && i == 0 ? begin<kForm>(owner, m) : advance<kForm>(rows, m);
    __syncwarp();
    if (more) owner.write(rows, m);
  }
  if (sound && !owner.read(last_of(place.segment)).finite())
    report_overflow(scan.plan.faults, place.batch, place.head,
                    place.time_of(place.segment * place.steps() + steps - 1));
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
                         using Place = TilePlace<kOrder, false>;
                         const RoomyPlan room = plan_tiles<Place>(launch, x, 1);
                         scan.plan = room.plan;
                         scan.plan.packed = in_packs(scan.x) && in_packs(scan.states);
                         launch.with_shared(form == MatrixForm::plain ? forward_kernel<T, kOrder, MatrixForm::plain>
                                                                      : forward_kernel<T, kOrder, MatrixForm::ldu>,
                                            static_cast<unsigned>(scan.plan.tiles * scan.plan.chains), Place::kThreads,
                                            room.shared_bytes, scan);
                       });
    if (!found) any_matrix_scan(x, initial, states, final, form, cut);
  });
}

}  // namespace monoid::cuda

#pragma once

#include <algorithm>
#include <type_traits>

#include "monoid/kernels/cuda/device/matrix_tile.cuh"
#include "monoid/kernels/cuda/launch.h"

// The host's side of the scans of matrices: how they are cut into tiles, and who takes the orders that have no kernel.

namespace monoid::cuda {

/// Calls body.template operator()<order>() for the orders with a kernel of their own; false for others.
template <class Body>
bool dispatch_order(int64_t order, const Body& body) {
  switch (order) {
    case 2:
      return body.template operator()<2>(), true;
    case 4:
      return body.template operator()<4>(), true;
    case 8:
      return body.template operator()<8>(), true;
    case 16:
      return body.template operator()<16>(), true;
    case 32:
      return body.template operator()<32>(), true;
    default:
      return false;
  }
}

template <class T, class Of>
Matrices<T> matrices_of(Of& tensor) {
  if (!tensor.defined()) return {};
  const Strides& strides = tensor.strides();
  T* base = tensor.template data<std::remove_const_t<T>>();
  return tensor.rank() == 5 ? Matrices<T>{base, strides[0], strides[1], strides[2]}
                            : Matrices<T>{base, strides[0], 0, strides[1]};
}

/// Whether four numbers at a time are aligned wherever a matrix begins.
template <class T>
bool in_packs(const Matrices<T>& x) {
  return aligned_for<4>(x.base, x.batch_step) && x.time_step % 4 == 0 && x.head_step % 4 == 0;
}

/// A plan, what its blocks take in shared memory, and room for its carries, which lives as long as the tensor.
struct RoomyPlan {
  TilePlan plan;
  size_t shared_bytes;
  Tensor carries_and_ticket;
};

/// For `copies` tiles in shared memory, and as many maps of each segment.
template <class Place>
RoomyPlan plan_tiles(const Launch& launch, const Tensor& x, int copies) {
  constexpr int kSegments = Place::kSegments;
  const int64_t time = x.size(1), heads = x.size(2), chains = x.size(0) * heads;
  check(time < (int64_t{1} << 30) && chains < (int64_t{1} << 30), "matrix_scan: [batch, time, head] is ", x.size(0),
        ", ", time, ", ", heads, ", more than a CUDA scan indexes; split the batch");
  int steps_log2 = 0;
  while (steps_log2 < most_steps_log2<Place>(copies) && (kSegments << steps_log2) < time) ++steps_log2;
  const int64_t tiles = std::max<int64_t>(1, blocks_for(time, int64_t{kSegments} << steps_log2));
  check(tiles * chains < (int64_t{1} << 31), "matrix_scan: ", tiles * chains,
        " tiles are more than a CUDA grid has; split the batch");
  const size_t segment = (size_t{Place::kSize} << steps_log2) + Place::kGap + Place::kStride;
  const size_t bytes = kSegments * copies * segment * sizeof(float);
  RoomyPlan room{{static_cast<int>(time), static_cast<int>(heads), static_cast<int>(chains), steps_log2,
                  static_cast<int>(tiles), true, nullptr, nullptr, fault_record(launch.index())},
                 bytes,
                 {}};
  if (tiles > 1 && chains > 0) {
    static_assert(kAbsent == 0xffffffffu);  // every byte the same
    Tensor& memory = room.carries_and_ticket;
    const int64_t numbers = (tiles - 1) * chains * Place::kSize;
    memory = Tensor::empty({numbers + 1}, DType::i32, x.device());
    check_call("matrix_scan", cudaMemsetAsync(memory.raw(), 0xff, memory.bytes(), launch.stream()));
    room.plan.carries = static_cast<unsigned*>(memory.raw());
    room.plan.ticket = room.plan.carries + numbers;
  }
  return room;
}

// Plain f32 matrices of order 16, of chains enough to fill the GPU (matrix_walk.cu); false where that does not pay.
bool matrix_walk(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final);
bool matrix_walk_gradient(const Tensor& x, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                          const Tensor& final_cotangent, Tensor& x_gradient, Tensor& initial_gradient);

// Orders without a kernel of their own, and one step after the other (matrix_scan_any.cu).
MatrixScan any_matrix_scan;
MatrixScanGradient any_matrix_scan_gradient;

}  // namespace monoid::cuda

#pragma once

#include <cstdint>

#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {

/// What a kernel can find wrong with the values it reads. The kernel goes on without touching foreign memory, and the
/// Error comes out where the host next waits for the device (item(), to_vector(), synchronize(), ...).
enum class Fault : int32_t { none, embedding_index, gather_index, target_class, negative_state };

/// The first fault of a device, in memory that both sides see.
struct FaultRecord {
  int32_t fault;
  int32_t claimed;
  int64_t position;
  double value;
  double limit;
};

/// Where kernels of a device report; give it to the kernel by value.
FaultRecord* fault_record(int index);
/// Throws the Error of a fault that was reported, once.
void check_faults(int index);
/// Why this build cannot run on a device, or empty: a kernel is tried on it.
std::string why_no_code(int index);

#ifdef __CUDACC__
/// Keeps the first report; which of several is first may differ between runs.
__device__ inline void report(FaultRecord* record, Fault fault, int64_t position, double value, double limit) {
  if (atomicCAS_system(&record->claimed, 0, 1) != 0) return;
  record->position = position;
  record->value = value;
  record->limit = limit;
  __threadfence_system();
  *reinterpret_cast<volatile int32_t*>(&record->fault) = static_cast<int32_t>(fault);
}
#endif

}  // namespace monoid::cuda

#pragma once

#include <cstdint>

#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {

/// What a kernel can find wrong with the values it reads. The kernel goes on without touching foreign memory, and the
/// Error comes out where the host next waits for the device (item(), to_vector(), synchronize(), ...).
enum class Fault : int32_t {
  none,
  embedding_index,
  gather_index,
  target_class,
  negative_state,
  rotary_position,
  cache_position
};

/// What the host reads of a fault.
struct FoundFault {
  int32_t fault;
  int64_t position;
  double value;
  double limit;
};

/// In the device's memory: who reports first, and where the host looks.
struct FaultRecord {
  int32_t claimed;
  FoundFault* found;            // host memory that the device writes to
  unsigned long long overflow;  // the least key of an overflow, kNoOverflow for none: no fault, but asked for
};
inline constexpr unsigned long long kNoOverflow = ~0ull;
/// Keys order overflows by time first.
inline constexpr int kOverflowHeadBits = 12, kOverflowBatchBits = 20;

/// Where kernels of a device report; give it to the kernel by value.
FaultRecord* fault_record(int index);
/// Throws the Error of a fault that was reported, once.
void check_faults(int index);
/// The least key reported since this was last asked; waits for what is queued on this thread's stream.
unsigned long long take_overflow(int index);
/// Why this build cannot run on a device, or empty: a kernel is tried on it.
std::string why_no_code(int index);

#ifdef __CUDACC__
/// Keeps the first report; which of several is first may differ between runs.
__device__ inline void report(FaultRecord* record, Fault fault, int64_t position, double value, double limit) {
  if (atomicCAS(&record->claimed, 0, 1) != 0) return;
  volatile FoundFault* const found = record->found;
  found->position = position;
  found->value = value;
  found->limit = limit;
  __threadfence_system();
  found->fault = static_cast<int32_t>(fault);
}
/// Keeps the earliest, whatever the order in which they come.
__device__ inline void report_overflow(FaultRecord* record, int batch, int head, int time) {
  const auto bounded = [](int value, int bits) { return static_cast<unsigned long long>(min(value, (1 << bits) - 1)); };
  atomicMin(&record->overflow, static_cast<unsigned long long>(time) << (kOverflowHeadBits + kOverflowBatchBits) |
                                   bounded(batch, kOverflowBatchBits) << kOverflowHeadBits |
                                   bounded(head, kOverflowHeadBits));
}
#endif

}  // namespace monoid::cuda

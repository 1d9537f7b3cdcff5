#pragma once

#include <cstdint>

// Copies from global into shared memory that pass by the registers, so that far more bytes are on their way than a
// thread could hold. A thread that reads only what it copied itself waits for its copies and needs no barrier.

namespace monoid::cuda {

/// Starts to copy sixteen bytes, or zeros where there is nothing to copy; both addresses are multiples of sixteen.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool exists = true) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
      "l"(global), "r"(exists ? 16 : 0)
      : "memory");
}

/// The same for four bytes.
__device__ __forceinline__ void copy_async_word(void* shared, const void* global, bool exists = true) {
  asm volatile(
      "cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
      "l"(global), "r"(exists ? 4 : 0)
      : "memory");
}

/// Ends a group: the copies started since the last one, perhaps none.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until all groups but the last `kPending` have arrived.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace monoid::cuda

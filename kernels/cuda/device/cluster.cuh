#pragma once

#include <cstdint>

// Blocks of one cluster: they run at the same time, wait for each other and write each other's shared memory. Compute
// capability 9.0 and later; on others no cluster is ever launched.

namespace monoid::cuda {

/// Every thread of every block of the cluster comes by; what they wrote before it is seen after it.
__device__ __forceinline__ void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
  __trap();
#endif
}

/// Writes to the shared memory of the block of another rank, where `own` lies in this block's.
__device__ __forceinline__ void write_peer(float* own, int rank, float value) {
#if __CUDA_ARCH__ >= 900
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(own))), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
#endif
}

}  // namespace monoid::cuda

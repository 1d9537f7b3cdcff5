#pragma once

#include <cstdint>

// Blocks of one cluster: they run at the same time, wait for each other and read each other's shared memory. Compute
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

/// What lies at `own`, an address in this block's shared memory, in that of the block of another rank.
__device__ __forceinline__ float read_peer(const float* own, int rank) {
  float value = 0;
#if __CUDA_ARCH__ >= 900
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(own))), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
#endif
  return value;
}

}  // namespace monoid::cuda

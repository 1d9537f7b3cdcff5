#pragma once

#include <cstdint>

// One warp hands something on to another: the writer posts, the reader collects. An mbarrier in shared memory each, on
// compute capability 8.0 and later. (A named barrier with an arriving side would do as well, but compute-sanitizer
// takes what it orders for races.)

namespace monoid::cuda {

struct Mailbox {
  uint64_t barrier;

  __device__ __forceinline__ uint32_t address() const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  }
  /// By one thread, with a barrier of the block before the first use.
  __device__ __forceinline__ void open() {
    asm volatile("mbarrier.init.shared.b64 [%0], 32;" ::"r"(address()) : "memory");
  }
  /// By a whole warp: what its threads wrote before is there for who collects.
  __device__ __forceinline__ void post() {
    [[maybe_unused]] uint64_t state;
    asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(state) : "r"(address()) : "memory");
  }
  /// By a whole warp, once for every post; `turn` is 0 the first time and then changes between 1 and 0.
  __device__ __forceinline__ void collect(uint32_t turn) const {
    uint32_t there = 0;
    while (!there) {
#if __CUDA_ARCH__ >= 900
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                   : "=r"(there)
                   : "r"(address()), "r"(turn)
                   : "memory");
#else
      asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                   : "=r"(there)
                   : "r"(address()), "r"(turn)
                   : "memory");
#endif
    }
  }
};

}  // namespace monoid::cuda

#pragma once

// Programmatic dependent launch: a kernel's blocks come onto the GPU while the kernel before it still runs, so that
// neither launching nor filling the GPU takes time of its own between small kernels.

namespace monoid::cuda {

/// First thing in a kernel that is launched with Launch::overlapped, before it touches memory that others write: lets
/// the next kernel come up, then waits until everything before this one is done and its memory is visible.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace monoid::cuda

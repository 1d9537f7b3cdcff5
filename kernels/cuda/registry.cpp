#include "monoid/kernels/registry.h"

#include "monoid/core/copy.h"
#include "monoid/kernels/cuda/runtime.h"
#include "monoid/kernels/optim.h"

namespace monoid {

// One line a kernel, in the order of kernels/registry.cpp. The runtime comes first: tensors need memory.
void bind_cuda_kernels() { cuda::bind_runtime(); }

}  // namespace monoid

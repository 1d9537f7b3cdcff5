#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// One line a kernel, explicit: a static library would drop self-registering objects. `bind_kernels_once` runs both.
void bind_cpu_kernels();
/// Empty in a CPU-only build (kernels/cuda_absent.cpp).
void bind_cuda_kernels();

}  // namespace monoid

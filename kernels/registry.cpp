#include "monoid/kernels/registry.h"

#include <mutex>

#include "monoid/core/copy.h"
#include "monoid/kernels/matmul.h"
#include "monoid/kernels/norm.h"

namespace monoid {

void bind_cpu_kernels() {
  constexpr auto on_cpu = DeviceKind::cpu;

  // copy
  kernels::copy.bind(on_cpu, cpu::copy);
  kernels::fill.bind(on_cpu, cpu::fill);
  kernels::accumulate.bind(on_cpu, cpu::accumulate);

  // elementwise

  // reduce

  // matmul
  kernels::matmul.bind(on_cpu, cpu::matmul);

  // indexing (gather, embedding)

  // softmax, cross-entropy

  // norm
  kernels::rms_norm.bind(on_cpu, cpu::rms_norm);
  kernels::rms_norm_gradient.bind(on_cpu, cpu::rms_norm_gradient);
  kernels::layer_norm.bind(on_cpu, cpu::layer_norm);
  kernels::layer_norm_gradient.bind(on_cpu, cpu::layer_norm_gradient);

  // dropout

  // conv

  // scan

  // optim
}

void bind_kernels_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    bind_cpu_kernels();
    bind_cuda_kernels();
  });
}

}  // namespace monoid

#include "monoid/kernels/registry.h"

#include <mutex>

#include "monoid/core/copy.h"
#include "monoid/kernels/attention.h"
#include "monoid/kernels/bias_gelu.h"
#include "monoid/kernels/cache.h"
#include "monoid/kernels/conv.h"
#include "monoid/kernels/cross_entropy.h"
#include "monoid/kernels/decoding.h"
#include "monoid/kernels/dropout.h"
#include "monoid/kernels/elementwise.h"
#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/gated_gelu.h"
#include "monoid/kernels/indexing.h"
#include "monoid/kernels/join.h"
#include "monoid/kernels/matmul.h"
#include "monoid/kernels/matrix_scan.h"
#include "monoid/kernels/norm.h"
#include "monoid/kernels/optim.h"
#include "monoid/kernels/reduce.h"
#include "monoid/kernels/rotary.h"
#include "monoid/kernels/scan.h"
#include "monoid/kernels/softmax.h"

namespace monoid {

void bind_cpu_kernels() {
  constexpr auto on_cpu = DeviceKind::cpu;

  // copy
  kernels::copy.bind(on_cpu, cpu::copy);
  kernels::fill.bind(on_cpu, cpu::fill);
  kernels::accumulate.bind(on_cpu, cpu::accumulate);
  kernels::join.bind(on_cpu, cpu::join);

  // elementwise
  kernels::unary.bind(on_cpu, cpu::unary);
  kernels::unary_gradient.bind(on_cpu, cpu::unary_gradient);
  kernels::binary.bind(on_cpu, cpu::binary);
  kernels::binary_gradient.bind(on_cpu, cpu::binary_gradient);
  kernels::compare.bind(on_cpu, cpu::compare);
  kernels::where.bind(on_cpu, cpu::where);
  kernels::bias_gelu.bind(on_cpu, cpu::bias_gelu);
  kernels::bias_gelu_gradient.bind(on_cpu, cpu::bias_gelu_gradient);
  kernels::gated_gelu.bind(on_cpu, cpu::gated_gelu);
  kernels::gated_gelu_gradient.bind(on_cpu, cpu::gated_gelu_gradient);

  // reduce
  kernels::sum.bind(on_cpu, cpu::sum);
  kernels::logsumexp.bind(on_cpu, cpu::logsumexp);
  kernels::arg_extremum.bind(on_cpu, cpu::arg_extremum);

  // matmul
  kernels::matmul.bind(on_cpu, cpu::matmul);

  // decoding
  kernels::copy_each.bind(on_cpu, cpu::copy_each);

  // indexing (gather, embedding)
  kernels::gather.bind(on_cpu, cpu::gather);
  kernels::gather_gradient.bind(on_cpu, cpu::gather_gradient);
  kernels::embedding.bind(on_cpu, cpu::embedding);
  kernels::embedding_gradient.bind(on_cpu, cpu::embedding_gradient);

  // softmax, cross-entropy
  kernels::softmax.bind(on_cpu, cpu::softmax);
  kernels::softmax_gradient.bind(on_cpu, cpu::softmax_gradient);
  kernels::log_softmax.bind(on_cpu, cpu::log_softmax);
  kernels::log_softmax_gradient.bind(on_cpu, cpu::log_softmax_gradient);
  kernels::cross_entropy_count.bind(on_cpu, cpu::cross_entropy_count);
  kernels::cross_entropy.bind(on_cpu, cpu::cross_entropy);
  kernels::cross_entropy_total.bind(on_cpu, cpu::cross_entropy_total);
  kernels::cross_entropy_rescale.bind(on_cpu, cpu::cross_entropy_rescale);
  kernels::cross_entropy_gradient.bind(on_cpu, cpu::cross_entropy_gradient);

  // norm
  kernels::rms_norm.bind(on_cpu, cpu::rms_norm);
  kernels::rms_norm_gradient.bind(on_cpu, cpu::rms_norm_gradient);
  kernels::layer_norm.bind(on_cpu, cpu::layer_norm);
  kernels::layer_norm_gradient.bind(on_cpu, cpu::layer_norm_gradient);

  // dropout
  kernels::dropout.bind(on_cpu, cpu::dropout);

  // conv
  kernels::causal_conv.bind(on_cpu, cpu::causal_conv);
  kernels::causal_conv_gradient.bind(on_cpu, cpu::causal_conv_gradient);

  // scan
  kernels::linear_scan.bind(on_cpu, cpu::linear_scan);
  kernels::linear_scan_gradient.bind(on_cpu, cpu::linear_scan_gradient);
  kernels::log_scan.bind(on_cpu, cpu::log_scan);
  kernels::log_scan_gradient.bind(on_cpu, cpu::log_scan_gradient);
  kernels::min_gru_scan.bind(on_cpu, cpu::min_gru_scan);
  kernels::min_gru_scan_gradient.bind(on_cpu, cpu::min_gru_scan_gradient);
  kernels::min_lstm_scan.bind(on_cpu, cpu::min_lstm_scan);
  kernels::min_lstm_scan_gradient.bind(on_cpu, cpu::min_lstm_scan_gradient);

  // attention
  kernels::attention.bind(on_cpu, cpu::attention);
  kernels::attention_gradient.bind(on_cpu, cpu::attention_gradient);
  kernels::rotary.bind(on_cpu, cpu::rotary);
  kernels::append_to_cache.bind(on_cpu, cpu::append_to_cache);

  // matrix scan
  kernels::matrix_scan.bind(on_cpu, cpu::matrix_scan);
  kernels::matrix_scan_gradient.bind(on_cpu, cpu::matrix_scan_gradient);
  kernels::ldu_matrix.bind(on_cpu, cpu::ldu_matrix);
  kernels::ldu_matrix_gradient.bind(on_cpu, cpu::ldu_matrix_gradient);
  kernels::take_matrix_overflow.bind(on_cpu, cpu::take_matrix_overflow);

  // complex scan, gate loop
  kernels::complex_scan.bind(on_cpu, cpu::complex_scan);
  kernels::complex_scan_gradient.bind(on_cpu, cpu::complex_scan_gradient);
  kernels::gate_loop_scan.bind(on_cpu, cpu::gate_loop_scan);
  kernels::gate_loop_scan_gradient.bind(on_cpu, cpu::gate_loop_scan_gradient);
  kernels::gate_loop_outer_scan.bind(on_cpu, cpu::gate_loop_outer_scan);
  kernels::gate_loop_outer_scan_gradient.bind(on_cpu, cpu::gate_loop_outer_scan_gradient);
  kernels::simple_gate_loop_scan.bind(on_cpu, cpu::simple_gate_loop_scan);
  kernels::simple_gate_loop_scan_gradient.bind(on_cpu, cpu::simple_gate_loop_scan_gradient);

  // optim
  kernels::adamw.bind(on_cpu, cpu::adamw);
  kernels::gradient_norms.bind(on_cpu, cpu::gradient_norms);
}

void bind_kernels_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    bind_cpu_kernels();
    bind_cuda_kernels();
  });
}

}  // namespace monoid

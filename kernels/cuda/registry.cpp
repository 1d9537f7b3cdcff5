#include "monoid/kernels/registry.h"

#include "monoid/core/copy.h"
#include "monoid/kernels/attention.h"
#include "monoid/kernels/bias_gelu.h"
#include "monoid/kernels/cache.h"
#include "monoid/kernels/conv.h"
#include "monoid/kernels/cross_entropy.h"
#include "monoid/kernels/cuda/runtime.h"
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

// One line a kernel, in the order of kernels/registry.cpp. The runtime comes first: tensors need memory.
void bind_cuda_kernels() {
  constexpr auto on_cuda = DeviceKind::cuda;
  cuda::bind_runtime();

  // copy
  kernels::copy.bind(on_cuda, cuda::copy);
  kernels::fill.bind(on_cuda, cuda::fill);
  kernels::accumulate.bind(on_cuda, cuda::accumulate);
  kernels::join.bind(on_cuda, cuda::join);

  // elementwise
  kernels::unary.bind(on_cuda, cuda::unary);
  kernels::unary_gradient.bind(on_cuda, cuda::unary_gradient);
  kernels::binary.bind(on_cuda, cuda::binary);
  kernels::binary_gradient.bind(on_cuda, cuda::binary_gradient);
  kernels::compare.bind(on_cuda, cuda::compare);
  kernels::where.bind(on_cuda, cuda::where);
  kernels::bias_gelu.bind(on_cuda, cuda::bias_gelu);
  kernels::bias_gelu_gradient.bind(on_cuda, cuda::bias_gelu_gradient);
  kernels::gated_gelu.bind(on_cuda, cuda::gated_gelu);
  kernels::gated_gelu_gradient.bind(on_cuda, cuda::gated_gelu_gradient);

  // reduce
  kernels::sum.bind(on_cuda, cuda::sum);
  kernels::logsumexp.bind(on_cuda, cuda::logsumexp);
  kernels::arg_extremum.bind(on_cuda, cuda::arg_extremum);

  // matmul
  kernels::matmul.bind(on_cuda, cuda::matmul);

  // decoding
  kernels::copy_each.bind(on_cuda, cuda::copy_each);
  kernels::few_rows_linear.bind(on_cuda, cuda::few_rows_linear);

  // indexing (gather, embedding)
  kernels::gather.bind(on_cuda, cuda::gather);
  kernels::gather_gradient.bind(on_cuda, cuda::gather_gradient);
  kernels::embedding.bind(on_cuda, cuda::embedding);
  kernels::embedding_gradient.bind(on_cuda, cuda::embedding_gradient);

  // attention
  kernels::attention.bind(on_cuda, cuda::attention);
  kernels::attention_gradient.bind(on_cuda, cuda::attention_gradient);

  // softmax
  kernels::softmax.bind(on_cuda, cuda::softmax);
  kernels::softmax_gradient.bind(on_cuda, cuda::softmax_gradient);
  kernels::log_softmax.bind(on_cuda, cuda::log_softmax);
  kernels::log_softmax_gradient.bind(on_cuda, cuda::log_softmax_gradient);

  // dropout
  kernels::dropout.bind(on_cuda, cuda::dropout);

  // matrix scan
  kernels::matrix_scan.bind(on_cuda, cuda::matrix_scan);
  kernels::matrix_scan_gradient.bind(on_cuda, cuda::matrix_scan_gradient);
  kernels::ldu_matrix.bind(on_cuda, cuda::ldu_matrix);
  kernels::ldu_matrix_gradient.bind(on_cuda, cuda::ldu_matrix_gradient);
  kernels::take_matrix_overflow.bind(on_cuda, cuda::take_matrix_overflow);

  // optim
  kernels::adamw.bind(on_cuda, cuda::adamw);
  kernels::gradient_norms.bind(on_cuda, cuda::gradient_norms);
  // cross-entropy
  kernels::cross_entropy_count.bind(on_cuda, cuda::cross_entropy_count);
  kernels::cross_entropy.bind(on_cuda, cuda::cross_entropy);
  kernels::cross_entropy_total.bind(on_cuda, cuda::cross_entropy_total);
  kernels::cross_entropy_rescale.bind(on_cuda, cuda::cross_entropy_rescale);
  kernels::cross_entropy_gradient.bind(on_cuda, cuda::cross_entropy_gradient);

  // norm
  kernels::rms_norm.bind(on_cuda, cuda::rms_norm);
  kernels::rms_norm_gradient.bind(on_cuda, cuda::rms_norm_gradient);
  kernels::layer_norm.bind(on_cuda, cuda::layer_norm);
  kernels::layer_norm_gradient.bind(on_cuda, cuda::layer_norm_gradient);

  // dropout

  // conv
  kernels::causal_conv.bind(on_cuda, cuda::causal_conv);
  kernels::causal_conv_gradient.bind(on_cuda, cuda::causal_conv_gradient);

  // scan
  kernels::linear_scan.bind(on_cuda, cuda::linear_scan);
  kernels::linear_scan_gradient.bind(on_cuda, cuda::linear_scan_gradient);
  kernels::log_scan.bind(on_cuda, cuda::log_scan);
  kernels::log_scan_gradient.bind(on_cuda, cuda::log_scan_gradient);
  kernels::min_gru_scan.bind(on_cuda, cuda::min_gru_scan);
  kernels::min_gru_scan_gradient.bind(on_cuda, cuda::min_gru_scan_gradient);
  kernels::min_lstm_scan.bind(on_cuda, cuda::min_lstm_scan);
  kernels::min_lstm_scan_gradient.bind(on_cuda, cuda::min_lstm_scan_gradient);

  // complex scan, gate loop
  kernels::complex_scan.bind(on_cuda, cuda::complex_scan);
  kernels::complex_scan_gradient.bind(on_cuda, cuda::complex_scan_gradient);
  kernels::gate_loop_scan.bind(on_cuda, cuda::gate_loop_scan);
  kernels::gate_loop_scan_gradient.bind(on_cuda, cuda::gate_loop_scan_gradient);
  kernels::gate_loop_outer_scan.bind(on_cuda, cuda::gate_loop_outer_scan);
  kernels::gate_loop_outer_scan_gradient.bind(on_cuda, cuda::gate_loop_outer_scan_gradient);
  kernels::simple_gate_loop_scan.bind(on_cuda, cuda::simple_gate_loop_scan);
  kernels::simple_gate_loop_scan_gradient.bind(on_cuda, cuda::simple_gate_loop_scan_gradient);

  // rotary, caches of attention
  kernels::rotary.bind(on_cuda, cuda::rotary);
  kernels::append_to_cache.bind(on_cuda, cuda::append_to_cache);

  // optim
}

}  // namespace monoid

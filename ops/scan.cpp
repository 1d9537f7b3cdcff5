#include "monoid/ops/scan.h"

#include "monoid/ops/sequences.h"

namespace monoid {
namespace {

void check_initial(const char* op, const Tensor& sequence, const Tensor& initial, int64_t channels) {
  if (!initial.defined()) return;
  check_same_device_and_dtype(op, sequence, initial);
  check_shape(op, "initial state", initial, {sequence.size(0), channels});
}

// What a scan writes.
struct Buffers {
  Tensor states, final;

  Buffers(const Tensor& sequence, int64_t channels)
      : states(Tensor::empty({sequence.size(0), sequence.size(1), channels}, sequence.dtype(), sequence.device())),
        final(Tensor::empty({sequence.size(0), channels}, sequence.dtype(), sequence.device())) {}
};

void check_affine(const char* op, const Tensor& a, const Tensor& b, const Tensor& initial) {
  check_sequence(op, "a", a);
  check_sequence(op, "b", b);
  check_same_device_and_dtype(op, a, b);
  check_shape(op, "b", b, a.shape());
  check_initial(op, a, initial, a.size(2));
}

// minGRU and minLSTM: the packed projection in one piece, one packed gradient back.
ScanResult gated_scan(const char* op, int64_t parts, const Kernel<GatedScan>& kernel,
                      const Kernel<GatedScanGradient>& gradient_kernel, const Tensor& packed, const Tensor& initial) {
  check_sequence(op, "the packed projection", packed);
  check(packed.size(2) % parts == 0, op, ": the packed projection is ", describe(packed), ", wanted ", parts,
        " * channel values along the last axis");
  const int64_t channels = packed.size(2) / parts;
  check_initial(op, packed, initial, channels);
  const Tensor entering = readable(initial);
  auto [states, final] = Buffers(packed, channels);
  kernel(packed, entering, states, final);
  Tape::record(op, {packed, initial}, {states, final},
               [=, &gradient_kernel, states = states](const Tensors& cotangents) -> Tensors {
                 Tensor packed_gradient = Tensor::empty_like(packed), initial_gradient = gradient_of(initial);
                 gradient_kernel(packed, entering, states, readable(cotangents[0]), readable(cotangents[1]),
                                 packed_gradient, initial_gradient);
                 return {packed_gradient, initial_gradient};
               });
  return {states, final};
}

}  // namespace

ScanResult linear_scan(const Tensor& a, const Tensor& b, const Tensor& initial, Direction direction) {
  check_affine("linear_scan", a, b, initial);
  const Tensor entering = readable(initial);
  auto [states, final] = Buffers(a, a.size(2));
  kernels::linear_scan(a, b, entering, states, final, direction);
  Tape::record("linear_scan", {a, b, initial}, {states, final},
               [=, states = states](const Tensors& cotangents) -> Tensors {
                 Tensor a_gradient = Tensor::empty_like(a), b_gradient = Tensor::empty_like(a);
                 Tensor initial_gradient = gradient_of(initial);
                 kernels::linear_scan_gradient(a, entering, states, readable(cotangents[0]), readable(cotangents[1]),
                                               a_gradient, b_gradient, initial_gradient, direction);
                 return {a_gradient, b_gradient, initial_gradient};
               });
  return {states, final};
}

ScanResult log_scan(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, Direction direction) {
  check_affine("log_scan", log_a, log_b, log_initial);
  const Tensor entering = readable(log_initial);
  auto [states, final] = Buffers(log_a, log_a.size(2));
  kernels::log_scan(log_a, log_b, entering, states, final, direction);
  Tape::record("log_scan", {log_a, log_b, log_initial}, {states, final},
               [=, states = states](const Tensors& cotangents) -> Tensors {
                 Tensor a_gradient = Tensor::empty_like(log_a), b_gradient = Tensor::empty_like(log_a);
                 Tensor initial_gradient = gradient_of(log_initial);
                 kernels::log_scan_gradient(log_a, log_b, entering, states, readable(cotangents[0]),
                                            readable(cotangents[1]), a_gradient, b_gradient, initial_gradient,
                                            direction);
                 return {a_gradient, b_gradient, initial_gradient};
               });
  return {states, final};
}

ScanResult min_gru_scan(const Tensor& hidden_and_gate, const Tensor& initial) {
  return gated_scan("min_gru_scan", 2, kernels::min_gru_scan, kernels::min_gru_scan_gradient, hidden_and_gate, initial);
}

ScanResult min_lstm_scan(const Tensor& hidden_and_f_i_gate, const Tensor& initial) {
  return gated_scan("min_lstm_scan", 3, kernels::min_lstm_scan, kernels::min_lstm_scan_gradient, hidden_and_f_i_gate,
                    initial);
}

}  // namespace monoid

#include "monoid/layers/stack_min_gru.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/scan.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// Each half from its own distribution, as if it stood alone.
Tensor packed_weight(int64_t in, int64_t out, Generator& init) {
  const Tensor hidden = xavier_parameter(out, in, init), gate = xavier_parameter(out, in, init);
  return concat({hidden.detach(), gate.detach()}, 0).set_requires_grad();
}

}  // namespace

Tensor positive_state(const Tensor& pre_activation) {
  const Tensor positive = relu(pre_activation);
  return positive + sigmoid(pre_activation - positive);
}

StackMinGru::StackMinGru(int64_t input_size, int64_t hidden_size, Bias bias, Generator& init)
    : hidden_size_(hidden_size),
      to_hidden_and_gate_(packed_weight(input_size, hidden_size, init), zero_bias(2 * hidden_size, bias)) {}

OutputAndState StackMinGru::forward(const Tensor& x, const Tensor& initial, const Padding& padding) const {
  const Tensor packed = padding.close_gates(to_hidden_and_gate_.forward(x), hidden_size_);
  const Tensor start =
      initial.defined() ? initial : Tensor::full({packed.size(0), hidden_size_}, 0.5, packed.dtype(), packed.device());
  const ScanResult scan = min_gru_scan(packed, start);
  return {scan.states, scan.final};
}

void StackMinGru::visit(Visitor& visitor) { visitor.child("to_hidden_and_gate", to_hidden_and_gate_); }

}  // namespace monoid

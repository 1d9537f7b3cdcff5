#include "monoid/layers/min_gru.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/scan.h"

namespace monoid {

MinGru::MinGru(const MinRnnOptions& options, Generator& init)
    : to_hidden_and_gate_(options.linear(options.channels, 2 * options.inner, options.bias, init)) {
  if (options.project_out.value_or(options.inner != options.channels))
    to_out_.emplace(options.linear(options.inner, options.channels, Bias::none, init));
}

Tensor project_out(const std::optional<Linear>& to_out, const Tensor& states, const Tensor& residual) {
  if (to_out) return to_out->forward(states, residual);
  return residual.defined() ? residual + states : states;
}

OutputAndState MinGru::forward(const Tensor& x, const Tensor& initial, const Tensor& residual,
                               const Padding& padding) const {
  return mixed(to_hidden_and_gate_.forward(x), initial, residual, padding);
}

OutputAndState MinGru::on_stream(const RmsNorm& norm, const Tensor& x, const Tensor& initial,
                                 const Padding& padding) const {
  const auto [packed, sum] = to_hidden_and_gate_.after(norm, x);
  return mixed(packed, initial, sum, padding);
}

OutputAndState MinGru::mixed(const Tensor& packed, const Tensor& initial, const Tensor& residual,
                             const Padding& padding) const {
  const ScanResult scan = min_gru_scan(padding.close_gates(packed, packed.size(-1) / 2), initial);
  return {project_out(to_out_, scan.states, residual), scan.final};
}

void MinGru::visit(Visitor& visitor) {
  visitor.child("to_hidden_and_gate", to_hidden_and_gate_);
  if (to_out_) visitor.child("to_out", *to_out_);
}

}  // namespace monoid

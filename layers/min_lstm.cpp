#include "monoid/layers/min_lstm.h"

#include "monoid/ops/scan.h"

namespace monoid {

MinLstm::MinLstm(const MinRnnOptions& options, Generator& init)
    : to_hidden_and_f_i_gate_(options.channels, 3 * options.inner, options.bias, init) {
  if (options.project_out.value_or(options.inner != options.channels))
    to_out_.emplace(options.inner, options.channels, Bias::none, init);
}

OutputAndState MinLstm::forward(const Tensor& x, const Tensor& initial, const Tensor& residual,
                                const Padding& padding) const {
  return mixed(to_hidden_and_f_i_gate_.forward(x), initial, residual, padding);
}

OutputAndState MinLstm::on_stream(const RmsNorm& norm, const Tensor& x, const Tensor& initial,
                                  const Padding& padding) const {
  const auto [packed, sum] = to_hidden_and_f_i_gate_.after(norm, x);
  return mixed(packed, initial, sum, padding);
}

OutputAndState MinLstm::mixed(const Tensor& packed, const Tensor& initial, const Tensor& residual,
                              const Padding& padding) const {
  const ScanResult scan = min_lstm_scan(padding.close_gates(packed, packed.size(-1) / 3 * 2), initial);
  return {project_out(to_out_, scan.states, residual), scan.final};
}

void MinLstm::visit(Visitor& visitor) {
  visitor.child("to_hidden_and_f_i_gate", to_hidden_and_f_i_gate_);
  if (to_out_) visitor.child("to_out", *to_out_);
}

}  // namespace monoid

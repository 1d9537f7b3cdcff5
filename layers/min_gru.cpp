#include "monoid/layers/min_gru.h"

#include "monoid/ops/scan.h"

namespace monoid {

MinGru::MinGru(const MinRnnOptions& options, Generator& init)
    : to_hidden_and_gate_(options.channels, 2 * options.inner, options.bias, init) {
  if (options.project_out.value_or(options.inner != options.channels))
    to_out_.emplace(options.inner, options.channels, Bias::none, init);
}

OutputAndState MinGru::forward(const Tensor& x, const Tensor& initial) const {
  const ScanResult scan = min_gru_scan(to_hidden_and_gate_.forward(x), initial);
  return {to_out_ ? to_out_->forward(scan.states) : scan.states, scan.final};
}

void MinGru::visit(Visitor& visitor) {
  visitor.child("to_hidden_and_gate", to_hidden_and_gate_);
  if (to_out_) visitor.child("to_out", *to_out_);
}

}  // namespace monoid

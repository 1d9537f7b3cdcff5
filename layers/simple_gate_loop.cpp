#include "monoid/layers/simple_gate_loop.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

SimpleGateLoop::SimpleGateLoop(const SimpleGateLoopOptions& options, Generator& init)
    : direction_(options.reverse ? Direction::reverse : Direction::forward),
      to_qkva_(options.dim, 3 * options.dim, Bias::none, init) {
  if (options.prenorm) norm_ = length_norm(options.dim);
  if (options.post_ln) post_norm_.emplace(options.dim);
}

Tensor SimpleGateLoop::project(const Tensor& x) const {
  return norm_ ? to_qkva_.after(*norm_, x).output : to_qkva_.forward(x);
}

OutputAndState SimpleGateLoop::forward(const Tensor& x, const Tensor& state) const {
  const GateLoopResult scan = simple_gate_loop_scan(project(x), state, direction_);
  return {post_norm_ ? post_norm_->forward(scan.output) : scan.output, scan.final};
}

Tensor SimpleGateLoop::decay(const Tensor& x) const {
  const int64_t channels = x.size(2);
  return exp(sum(log_sigmoid(slice(project(x), 2, 2 * channels, 3 * channels)), 1));
}

void SimpleGateLoop::visit(Visitor& visitor) {
  if (norm_) visitor.child("norm", *norm_);
  visitor.child("to_qkva", to_qkva_);
  if (post_norm_) visitor.child("post_norm", *post_norm_);
}

}  // namespace monoid

#include "monoid/layers/gate_loop.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

const GateLoopedAttentionOptions& validated(const GateLoopedAttentionOptions& options) {
  check(options.heads >= 1 && options.inner % options.heads == 0, "GateLoopedAttention: ", options.heads,
        " heads do not share ", options.inner, " channels; wanted a divisor of these");
  return options;
}

}  // namespace

int64_t GateLoopedAttentionOptions::parameters() const {
  const int64_t gate = 2 * heads * (channels + 1), norm = sub_norm ? 2 * inner : 0;
  return 3 * inner * channels + gate + norm + (swish_gating ? inner * channels : 0) +
         (projects_out() ? inner * channels : 0);
}

GateLoopedAttention::GateLoopedAttention(const GateLoopedAttentionOptions& options, Generator& init)
    : options_(validated(options)),
      to_qkv_(options.channels, 3 * options.inner, Bias::none, init),
      to_a_(options.channels, 2 * options.heads, Bias::learned, init) {
  if (options.sub_norm) sub_norm_.emplace(options.inner);
  if (options.swish_gating) to_gates_.emplace(options.channels, options.inner, Bias::none, init);
  if (options.projects_out()) to_out_.emplace(options.inner, options.channels, Bias::none, init);
}

Tensor GateLoopedAttention::forward(const Tensor& x, StateUpdate& state, const std::string& name,
                                    const Tensor& residual) const {
  const int64_t batch = x.size(0), heads = options_.heads, size = options_.inner / heads;
  const Shape per_head{batch, x.size(1), heads, 2};
  // A transition of 1 does not look at z, so nothing is asked of it, and to_a gets no gradient.
  const Tensor z = options_.recurrence.transition == Transition::one ? Tensor::zeros(per_head, x.dtype(), x.device())
                                                                     : reshape(to_a_.forward(x), per_head);
  // Padding adds nothing to a state that is still zero, and so it stays zero.
  const GateLoopResult scan = gate_loop_scan(state.padding().zeroed(to_qkv_.forward(x)), z, options_.recurrence,
                                             state.before(name + ".state", {batch, heads, size, size, 2}));
  state.after(name + ".state", scan.final);
  Tensor mixed = sub_norm_ ? sub_norm_->forward(scan.output) : scan.output;
  if (to_gates_) mixed = silu_gated(mixed, to_gates_->forward(x));
  return to_out_ ? to_out_->forward(mixed, residual) : residual + mixed;
}

void GateLoopedAttention::visit(Visitor& visitor) {
  visitor.child("to_qkv", to_qkv_);
  visitor.child("to_a", to_a_);
  if (sub_norm_) visitor.child("sub_norm", *sub_norm_);
  if (to_gates_) visitor.child("to_gates", *to_gates_);
  if (to_out_) visitor.child("to_out", *to_out_);
}

}  // namespace monoid

#pragma once

#include <optional>

#include "monoid/layers/linear.h"
#include "monoid/layers/norm.h"
#include "monoid/layers/state.h"
#include "monoid/ops/gate_loop.h"

namespace monoid {

struct GateLoopedAttentionOptions {
  int64_t channels = 0;
  int64_t inner = 0;         // channels of the recurrence
  int64_t heads = 0;         // a divisor of inner; as many as inner: every channel for itself
  bool swish_gating = true;  // what comes out is multiplied by silu of a projection of the input
  bool sub_norm = false;     // a LayerNorm before that
  GateLoopOptions recurrence = {};
  /// A projection back to `channels`: without gates and with inner = channels there is none.
  bool projects_out() const { return swish_gating || inner != channels; }
  /// Elements of all parameters.
  int64_t parameters() const;
};

/// GateLoop (Katsch, 2023) in the place of attention: S_t = a_t S_{t-1} + k_t v_t^T, y_t = q_t^T Re(S_t) per head, with
/// a complex a_t that is made from the input: ops/gate_loop.h.
class GateLoopedAttention : public Module {
 public:
  GateLoopedAttention(const GateLoopedAttentionOptions& options, Generator& init);

  /// x [batch, time, channels] -> the same shape, plus a residual of that shape. Its state is `name`.state
  /// [batch, heads, inner / heads, inner / heads, 2].
  Tensor forward(const Tensor& x, StateUpdate& state, const std::string& name, const Tensor& residual) const;
  void visit(Visitor& visitor) override;

 private:
  GateLoopedAttentionOptions options_;
  Linear to_qkv_, to_a_;
  std::optional<LayerNorm> sub_norm_;
  std::optional<Linear> to_gates_, to_out_;
};

}  // namespace monoid

#pragma once

#include <optional>

#include "monoid/layers/linear.h"
#include "monoid/layers/norm.h"
#include "monoid/layers/state.h"
#include "monoid/ops/gate_loop.h"

namespace monoid {

/// The arguments of lucidrains/gateloop-transformer's SimpleGateLoopLayer, under their names.
struct SimpleGateLoopOptions {
  int64_t dim = 0;
  bool prenorm = true;
  bool use_heinsen = false;  // another way there to the same numbers; here there is one, which is exact and as fast
  bool post_ln = false;
  bool reverse = false;  // time runs from the end
};

/// A real linear recurrence in every channel, read out and gated by the input: [q | kv | a] = to_qkva(norm(x)),
/// h_t = sigmoid(a_t) h_{t-1} + kv_t, y_t = q_t h_t, and a LayerNorm with post_ln. No residual.
class SimpleGateLoop : public Module {
 public:
  SimpleGateLoop(const SimpleGateLoopOptions& options, Generator& init);

  /// x [batch, time, dim] -> the same shape, from the state [batch, dim] or from zeros, and the last state (in reverse
  /// that of time 0).
  OutputAndState forward(const Tensor& x, const Tensor& state = {}) const;
  /// The product of sigmoid(a_t) over x, [batch, dim]: how much of the state before is left in the one after.
  Tensor decay(const Tensor& x) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor project(const Tensor& x) const;

  Direction direction_;
  std::optional<RmsNorm> norm_;
  Linear to_qkva_;
  std::optional<LayerNorm> post_norm_;
};

}  // namespace monoid

#pragma once

#include <optional>

#include "monoid/layers/linear.h"
#include "monoid/layers/rotary_embedding.h"
#include "monoid/ops/gate_loop.h"

namespace monoid {

struct CausalFullAttentionOptions {
  int64_t channels = 0;
  int64_t heads = 8;
  int64_t head_channels = 64;
  bool softmax = true;       // without it scores are weights as they are
  bool rotary = false;       // rotary positions of stored frequencies, interleaved
  bool swish_gating = true;  // what comes out is multiplied by silu of a projection of the input
  /// "Positions" made from the input: transitions a_i as GateLoop's, one a pair of channels; with their product along
  /// the pairs of a head, p_i = Re(a_1 ... a_i), at least 1e-10, a query is multiplied by p and a key by 1 / p. (The
  /// product was meant to run along time; this is what the reference computes.)
  bool relative_positions = false;
  GateLoopOptions recurrence = {};  // of these
  /// Whether the state keeps its shapes: rotary positions are counted in a cache.
  bool has_bounded_state() const { return !softmax && !rotary; }
  int64_t inner() const { return heads * head_channels; }
  /// Elements of all parameters.
  int64_t parameters() const;
};

/// Causal attention over all steps before, as lucidrains/gateloop-transformer has it beside GateLoop.
class CausalFullAttention : public Module {
 public:
  CausalFullAttention(const CausalFullAttentionOptions& options, Generator& init);

  /// x [batch, time, channels] -> the same shape, plus a residual of that shape. Its state is the caches `name`.keys
  /// (with their positions) and `name`.values, or without softmax `name`.state [batch, heads, head_channels,
  /// head_channels, 2].
  Tensor forward(const Tensor& x, StateUpdate& state, const std::string& name, const Tensor& residual) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor product(const Tensor& x) const;
  Tensor linear(const Tensors& qkv, StateUpdate& state, const std::string& name) const;

  CausalFullAttentionOptions options_;
  Linear to_heads_;
  std::optional<Linear> to_a_, to_gates_;
  Linear from_heads_;
  RotaryEmbedding rotary_;
  Tensor frequencies_;  // stored, not trained
};

}  // namespace monoid

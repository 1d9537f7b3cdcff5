#pragma once

#include "monoid/layers/linear.h"
#include "monoid/layers/rotary_embedding.h"

namespace monoid {

struct GroupedAttentionOptions {
  int64_t channels = 0;
  int64_t heads = 1, key_heads = 1;  // heads is a multiple of key_heads
  int64_t head_channels = 0;
  Bias bias = Bias::none;
  double deviation = 0.02;  // of the projections at their start

  /// Elements of all parameters.
  int64_t parameters() const;
};

/// Causal softmax attention whose query heads share key heads in groups (Ainslie et al., "GQA", 2023), with rotary
/// positions and scale 1 / sqrt(head_channels).
class GroupedAttention : public Module {
 public:
  GroupedAttention(const GroupedAttentionOptions& options, Generator& init);

  /// x [batch, time, channels] -> the same shape, plus a residual of that shape. It goes on from the state's caches
  /// `name`.keys (turned) and `name`.values.
  Tensor forward(const Tensor& x, const RotaryEmbedding::Turn& turn, StateUpdate& state, const std::string& name,
                 const Tensor& residual) const;
  void visit(Visitor& visitor) override;

 private:
  GroupedAttentionOptions options_;
  Linear to_query_, to_key_value_, to_out_;  // keys first
};

}  // namespace monoid

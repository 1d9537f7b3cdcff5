#pragma once

#include "monoid/layers/min_gru.h"
#include "monoid/layers/norm.h"

namespace monoid {

struct HybridMixerOptions {
  int64_t channels = 0;
  int64_t heads = 8;
  int64_t head_channels = 64;
  bool convex_mix = false;  // mix * rnn + (1 - mix) * attention, instead of mix * (rnn + (1 - mix) * attention)
};

/// A minGRU and a causal softmax attention side by side, without positions, after Hymba (Dong et al., 2024): both in
/// heads of their own, normed, and weighted against each other for each token and head. (minGRUAttnHybrid of
/// lucidrains/minGRU-pytorch, which multiplies by the weight once too often; `convex_mix` is what seems meant.)
class HybridMixer : public Module {
 public:
  HybridMixer(const HybridMixerOptions& options, Generator& init);

  /// x [batch, time, channels] -> the same shape, plus a residual of that shape if given. Its state, by names that
  /// begin with `name`: .hidden [batch, heads * head_channels], and the caches .keys and .values.
  Tensor forward(const Tensor& x, StateUpdate& state, const std::string& name, const Tensor& residual = {}) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor attended(const Tensor& qkv, StateUpdate& state, const std::string& name) const;

  HybridMixerOptions options_;
  Linear to_qkv_;
  RmsNorm mix_norm_;
  Linear to_mix_;
  MinGru rnn_;
  RmsNorm rnn_out_norm_, attention_out_norm_;
  Linear to_out_;
};

}  // namespace monoid

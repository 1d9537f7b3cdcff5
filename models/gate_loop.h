#pragma once

#include <variant>
#include <vector>

#include "monoid/layers/causal_full_attention.h"
#include "monoid/layers/embedding.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/gate_loop.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// The arguments of lucidrains/gateloop-transformer's Transformer, under their names; the defaults without one there
/// are its training script's.
struct GateLoopConfig {
  static constexpr const char* kType = "gate-loop";

  int64_t num_tokens = 256;
  int64_t dim = 512;
  int64_t depth = 6;
  int64_t dim_head = 64, heads = 8;                  // of full attention
  double ff_mult = 4;                                // width of the feed-forward layers: int(dim * ff_mult)
  bool use_gate_looped_attn = true;                  // otherwise full causal attention
  std::optional<int64_t> gate_loop_heads = {};       // by default as many as channels
  std::optional<int64_t> dim_gate_looped_attn = {};  // by default dim
  bool attn_add_swish_gating = true;
  std::optional<bool> attn_softmax_normalize = {};  // of full attention; by default not with data_dependent_rel_pos
  bool data_dependent_rel_pos = false;              // of full attention
  double frac_gradient_state_transition = 0.9;      // how much of their gradient transitions pass on
  bool ablate_complex = false;                      // transitions are real
  bool ablate_state_transition = false;             // or 1
  bool rotary_emb = false;                          // of full attention
  bool post_ln_norm = false;                        // LayerNorm after each residual, instead of RMSNorm before a block
  bool sub_ln = false;                              // LayerNorm of what a gate loop reads out
  bool checkpoint_gate_looped_attn = true;  // kept for who reads the file: the scan always makes its states again

  GateLoopedAttentionOptions gate_looped() const;
  CausalFullAttentionOptions full_attention() const;
  int64_t feed_forward_inner() const { return static_cast<int64_t>(static_cast<double>(dim) * ff_mult); }
  /// Parameters of the model, without building it.
  int64_t parameters() const;

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// The GateLoop Transformer. Per layer: RMSNorm -> gate-looped or full attention, residual -> RMSNorm -> feed-forward,
/// residual; then RMSNorm and a linear head. With post_ln_norm instead a LayerNorm follows each residual, and the head
/// has none.
class GateLoop : public LanguageModel {
 public:
  GateLoop(const GateLoopConfig& config, Generator& init);

  std::string type() const override { return GateLoopConfig::kType; }
  int64_t vocabulary() const override { return config_.num_tokens; }
  std::string config() const override { return to_json(config_); }
  /// Its state: "layers.N.state" of a gate loop or of attention without softmax, or else the caches "layers.N.keys" and
  /// "layers.N.values".
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  bool has_bounded_state() const override;
  void visit(Visitor& visitor) override;

 private:
  template <class Norm>
  struct Norms {
    Norm mixer, feed_forward;
  };
  class Layer : public Module {
   public:
    Layer(const GateLoopConfig& config, int64_t index, Generator& init);
    Tensor forward(const Tensor& x, StateUpdate& state) const;
    void visit(Visitor& visitor) override;

   private:
    std::string name_;
    std::variant<Norms<RmsNorm>, Norms<LayerNorm>> norms_;  // before a block, or after its residual
    std::variant<GateLoopedAttention, CausalFullAttention> mixer_;
    FeedForward feed_forward_;
  };

  GateLoopConfig config_;
  Embedding embedding_;
  std::vector<Layer> layers_;
  std::optional<RmsNorm> norm_;
  Linear to_logits_;
};

}  // namespace monoid

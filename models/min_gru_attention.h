#pragma once

#include <variant>

#include "monoid/layers/activation.h"
#include "monoid/layers/causal_conv.h"
#include "monoid/layers/embedding.h"
#include "monoid/layers/grouped_attention.h"
#include "monoid/layers/min_gru.h"
#include "monoid/layers/norm.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// The configuration of vasqu/minGRU-torch's MinGRUForCausalLM: Hugging Face's keys, and the reference's defaults.
struct MinGruAttentionConfig {
  static constexpr const char* kType = "min-gru-attention";

  int64_t vocab_size = 50280;
  int64_t pad_token_id = 0, bos_token_id = 0, eos_token_id = 0;
  int64_t hidden_size = 768;
  int64_t gru_expansion_factor = 2;
  int64_t conv_kernel_size = 4;
  int64_t mlp_expansion_factor = 4;
  std::optional<int64_t> attention_head_dim = 64;  // null: hidden_size / num_attention_heads
  int64_t num_attention_heads = 18, num_key_value_heads = 18;
  bool use_mingru_bias = false, use_conv_bias = true, use_attention_bias = false, use_mlp_bias = false;
  std::vector<int64_t> attention_layers_idx = {4, 9};  // the other layers are minGRUs
  int64_t num_hidden_layers = 12;
  double rms_norm_epsilon = 1e-5;
  std::string mlp_hidden_act = "gelu", conv_hidden_act = "silu";
  double initializer_range = 0.02;
  int64_t max_position_embeddings = 2048;  // where dynamic scaling begins; longer sequences are read all the same
  double rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling = {};
  bool use_cache = true;  // kept for who reads the file; a state is used where one is given
  bool tie_word_embeddings = true;

  bool is_attention(int64_t layer) const;
  int64_t inner() const { return hidden_size * gru_expansion_factor; }
  int64_t head_dim() const { return attention_head_dim.value_or(hidden_size / num_attention_heads); }
  int64_t mlp_inner() const { return hidden_size * mlp_expansion_factor; }
  GroupedAttentionOptions attention() const;
  RotaryEmbeddingOptions rotary() const;
  /// Parameters of the model, without building it.
  int64_t parameters() const;

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// A language model of minGRU layers with attention in some of their places. Per layer: RMSNorm -> a causal convolution
/// and a minGRU, or attention with rotary positions; residual -> RMSNorm -> up, activation, down; residual. Then
/// RMSNorm and a head, the embedding itself unless tie_word_embeddings is off.
class MinGruAttention : public LanguageModel {
 public:
  MinGruAttention(const MinGruAttentionConfig& config, Generator& init);

  std::string type() const override { return MinGruAttentionConfig::kType; }
  int64_t vocabulary() const override { return config_.vocab_size; }
  std::string config() const override { return to_json(config_); }
  /// Its state: "layers.N.hidden" [batch, inner] and "layers.N.conv_tail" [batch, conv_kernel_size - 1, hidden_size];
  /// of attention the caches "layers.N.keys" and "layers.N.values" [batch, step, key head, head channel].
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  bool has_bounded_state() const override { return config_.attention_layers_idx.empty(); }
  void visit(Visitor& visitor) override;

 private:
  /// conv -> activation -> minGRU.
  class Recurrence : public Module {
   public:
    Recurrence(const MinGruAttentionConfig& config, Generator& init);
    Tensor forward(const Tensor& x, StateUpdate& state, const std::string& name, const Tensor& residual) const;
    void visit(Visitor& visitor) override;

   private:
    int64_t inner_, tail_;
    CausalDepthwiseConv conv_;
    ActivationFunction activation_;
    MinGru min_gru_;
  };
  class Layer : public Module {
   public:
    Layer(const MinGruAttentionConfig& config, int64_t index, Generator& init);
    /// `turn` is looked at by attention alone.
    Tensor forward(const Tensor& x, const std::optional<RotaryEmbedding::Turn>& turn, StateUpdate& state) const;
    void visit(Visitor& visitor) override;

   private:
    std::string name_;
    RmsNorm mixer_norm_;
    std::variant<Recurrence, GroupedAttention> mixer_;
    RmsNorm mlp_norm_;
    Linear up_, down_;
    ActivationFunction activation_;
  };

  MinGruAttentionConfig config_;
  Embedding embedding_;
  RotaryEmbedding rotary_;
  std::vector<Layer> layers_;
  RmsNorm norm_;
  std::optional<Linear> head_;
};

}  // namespace monoid

#pragma once

#include <variant>
#include <vector>

#include "monoid/layers/embedding.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/matrix_recurrent.h"
#include "monoid/layers/norm.h"
#include "monoid/layers/xpos_attention.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// The arguments of mikayahlevi/mru-lm's hybrid network, under their names; the sizes are those of its training on
/// characters.
struct MruLmConfig {
  static constexpr const char* kType = "mru-lm";

  int64_t vocab_size = 256;
  int64_t embedding_size = 384;
  double dropout_rate = 0;
  int64_t n_state_heads = 6;
  int64_t state_size = 384;
  int64_t n_attn_heads = 6;
  int64_t key_size = 384;
  int64_t value_size = 384;
  std::vector<std::string> layers{"mru", "mlp", "mru", "mlp", "mru", "mlp", "mru", "mlp", "mru", "mlp", "mru", "mlp"};
  int64_t max_sequence_length = 1024;  // the middle of it is where positions have no effect; longer sequences do well

  bool has(const std::string& layer) const;
  MatrixRecurrentOptions mru() const;
  XPosAttentionOptions attention() const;
  /// Of layers whose output joins the residual stream: 0.02 / sqrt(layers).
  double out_deviation() const;
  /// Parameters of the model, without building it.
  int64_t parameters() const;

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// A language model of matrix recurrent units, attention and feed-forward layers in any order. Embedding, dropout; per
/// layer x + layer(LayerNorm(x)); LayerNorm, and the embedding again as head. No biases.
class MruLm : public LanguageModel {
 public:
  MruLm(const MruLmConfig& config, Generator& init);

  std::string type() const override { return MruLmConfig::kType; }
  int64_t vocabulary() const override { return config_.vocab_size; }
  std::string config() const override { return to_json(config_); }
  /// Its state: "layers.N.matrices" [batch, head, order, order] of an mru layer, f32 (f64 for f64), and the caches of
  /// keys and values of an attn layer.
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  bool has_bounded_state() const override { return !config_.has("attn"); }
  /// Three groups, each with its limit: the embedding and the norms do not decay; what makes the matrices learns at
  /// sqrt(2 / context) / order of the rate and has a limit of sqrt(context / 2), since a matrix early in a sequence has
  /// a part in every state after it.
  std::vector<ParameterGroup> parameter_groups(const OptimizerSettings& settings) override;
  void visit(Visitor& visitor) override;

 private:
  struct Layer : Module {
    Layer(const MruLmConfig& config, size_t index, Generator& init);
    Tensor forward(const Tensor& x, const Tensor& residual, const XPosRotation& rotation, StateUpdate& state,
                   Generator* dropout) const;
    void visit(Visitor& visitor) override;

    std::string name;
    LayerNorm norm;
    std::variant<MatrixRecurrent, XPosAttention, FeedForward> mixer;
    Dropout dropout;
  };

  MruLmConfig config_;
  Embedding embedding_;
  Dropout dropout_;
  std::vector<Layer> layers_;
  LayerNorm norm_;
};

}  // namespace monoid

#pragma once

#include "monoid/layers/embedding.h"
#include "monoid/layers/mamba_min_gru.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// A vocabulary, and the arguments of Fritschek/MinGRU-x-Mamba's StackedMambaMinGRU under their names.
struct StackedMinGruConfig {
  static constexpr const char* kType = "stacked-min-gru";

  int64_t num_tokens = 256;
  int64_t num_layers = 4;
  int64_t input_size = 256;   // of the embedding and the residual stream
  int64_t hidden_size = 512;  // of the strands and the recurrence
  bool bias = true;
  double dropout = 0;
  bool proj_down = true;

  StackedMambaMinGruOptions stack() const;
  /// Parameters of the model, without building it; the two of the stack that nothing uses are among them.
  int64_t parameters() const { return stack().parameters() + 2 * num_tokens * input_size; }

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// A language model on the causal stack: an embedding, the stack, and a linear head without bias. (The reference has
/// only the stack, whose convolution sees one step ahead.)
class StackedMinGru : public LanguageModel {
 public:
  StackedMinGru(const StackedMinGruConfig& config, Generator& init);

  std::string type() const override { return StackedMinGruConfig::kType; }
  int64_t vocabulary() const override { return config_.num_tokens; }
  std::string config() const override { return to_json(config_); }
  /// Its state: "layers.N.conv_tail" [batch, 2, hidden_size] and "layers.N.hidden" [batch, hidden_size].
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  void visit(Visitor& visitor) override;

 private:
  StackedMinGruConfig config_;
  Embedding embedding_;
  StackedMambaMinGru stack_;
  Linear to_logits_;
};

}  // namespace monoid

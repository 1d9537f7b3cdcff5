#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "monoid/layers/causal_conv.h"
#include "monoid/layers/dropout.h"
#include "monoid/layers/embedding.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/min_lstm.h"
#include "monoid/layers/norm.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// The arguments of lucidrains/minGRU-pytorch's minLM, under their names; the defaults without one there are its
/// training script's.
struct MinLmConfig {
  static constexpr const char* kType = "minlm";

  int64_t num_tokens = 256;
  int64_t dim = 512;
  int64_t depth = 6;
  double ff_mult = 4;      // width of the feed-forward layers: int(dim * ff_mult)
  double expansion = 1.5;  // width of the recurrence: int(dim * expansion)
  int64_t conv_kernel_size = 3;
  bool use_lstm = false;
  bool enable_conv = false;
  double dropout = 0;

  int64_t inner() const { return static_cast<int64_t>(static_cast<double>(dim) * expansion); }
  int64_t feed_forward_inner() const { return static_cast<int64_t>(static_cast<double>(dim) * ff_mult); }
  /// Parameters of the model, without building it.
  int64_t parameters() const;

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// A language model of minimal recurrences. Per layer: [convolution, residual] -> RMSNorm -> minGRU or minLSTM,
/// residual -> RMSNorm -> feed-forward, residual -> dropout on the stream itself; then RMSNorm and a linear head.
class MinLm : public LanguageModel {
 public:
  MinLm(const MinLmConfig& config, Generator& init);

  std::string type() const override { return MinLmConfig::kType; }
  int64_t vocabulary() const override { return config_.num_tokens; }
  std::string config() const override { return to_json(config_); }
  /// Its state: "layers.N.hidden" [batch, inner], and "layers.N.conv_tail" [batch, conv_kernel_size - 1, dim].
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  void visit(Visitor& visitor) override;

 private:
  class Layer : public Module {
   public:
    Layer(const MinLmConfig& config, int64_t index, Generator& init);
    Tensor forward(Tensor x, StateUpdate& state, Generator* dropout) const;
    void visit(Visitor& visitor) override;

   private:
    int64_t inner_;
    int64_t tail_;  // steps the convolution looks back
    std::string hidden_name_, tail_name_;
    std::optional<CausalSeparableConv> conv_;
    RmsNorm mixer_norm_;
    std::variant<MinGru, MinLstm> mixer_;
    RmsNorm feed_forward_norm_;
    FeedForward feed_forward_;
    Dropout dropout_;
  };

  MinLmConfig config_;
  Embedding embedding_;
  std::vector<Layer> layers_;
  RmsNorm norm_;
  Linear to_logits_;
};

}  // namespace monoid

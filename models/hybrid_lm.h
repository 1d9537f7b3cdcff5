#pragma once

#include <vector>

#include "monoid/layers/embedding.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/hybrid_mixer.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// The arguments of lucidrains/minGRU-pytorch's hybridLM, under their names, and `convex_mix`; the defaults without one
/// there are its training script's.
struct HybridLmConfig {
  static constexpr const char* kType = "hybridlm";

  int64_t num_tokens = 256;
  int64_t dim = 512;
  int64_t depth = 6;
  double ff_mult = 4;  // width of the feed-forward layers: int(dim * ff_mult)
  int64_t heads = 8;
  int64_t dim_head = 64;
  bool convex_mix = false;  // see HybridMixerOptions

  int64_t inner() const { return heads * dim_head; }
  int64_t feed_forward_inner() const { return static_cast<int64_t>(static_cast<double>(dim) * ff_mult); }
  /// Parameters of the model, without building it.
  int64_t parameters() const;

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// A language model of minGRUs beside attention. Per layer: RMSNorm -> HybridMixer, residual -> RMSNorm ->
/// feed-forward, residual; then RMSNorm and a linear head.
class HybridLm : public LanguageModel {
 public:
  HybridLm(const HybridLmConfig& config, Generator& init);

  std::string type() const override { return HybridLmConfig::kType; }
  int64_t vocabulary() const override { return config_.num_tokens; }
  std::string config() const override { return to_json(config_); }
  /// Its state: "layers.N.hidden" [batch, heads * dim_head], and the caches "layers.N.keys" and "layers.N.values".
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  bool has_bounded_state() const override { return false; }
  void visit(Visitor& visitor) override;

 private:
  class Layer : public Module {
   public:
    Layer(const HybridLmConfig& config, int64_t index, Generator& init);
    Tensor forward(const Tensor& x, StateUpdate& state) const;
    void visit(Visitor& visitor) override;

   private:
    std::string name_;
    RmsNorm mixer_norm_;
    HybridMixer mixer_;
    RmsNorm feed_forward_norm_;
    FeedForward feed_forward_;
  };

  HybridLmConfig config_;
  Embedding embedding_;
  std::vector<Layer> layers_;
  RmsNorm norm_;
  Linear to_logits_;
};

}  // namespace monoid

#include "monoid/models/hybrid_lm.h"

#include "monoid/layers/recompute.h"

namespace monoid {

int64_t HybridLmConfig::parameters() const {
  const int64_t wide = feed_forward_inner();
  const int64_t mixer = (3 + 2 + 1) * dim * inner() + dim + dim * heads + 2 * dim_head;
  const int64_t feed_forward = 2 * dim * wide + wide + dim;
  return depth * (mixer + feed_forward + 2 * dim) + dim + 2 * num_tokens * dim;
}

void HybridLmConfig::visit(ConfigVisitor& visitor) {
  visitor.key("num_tokens", num_tokens);
  visitor.key("dim", dim);
  visitor.key("depth", depth);
  visitor.key("ff_mult", ff_mult);
  visitor.key("heads", heads);
  visitor.key("dim_head", dim_head);
  visitor.key("convex_mix", convex_mix);
}

void HybridLmConfig::validate() const {
  check_range(kType, "num_tokens", num_tokens, 1);
  check_range(kType, "dim", dim, 1);
  check_range(kType, "depth", depth, 1);
  check_range(kType, "heads", heads, 1);
  check_range(kType, "dim_head", dim_head, 1);
  check_width(kType, "heads * dim_head", static_cast<double>(heads) * static_cast<double>(dim_head));
  check_width(kType, "dim * ff_mult", static_cast<double>(dim) * ff_mult);
}

HybridLm::Layer::Layer(const HybridLmConfig& config, int64_t index, Generator& init)
    : name_(str("layers.", index)),
      mixer_norm_(config.dim),
      mixer_({.channels = config.dim,
              .heads = config.heads,
              .head_channels = config.dim_head,
              .convex_mix = config.convex_mix},
             init),
      feed_forward_norm_(config.dim),
      feed_forward_(config.dim, config.feed_forward_inner(), Bias::learned, init) {}

Tensor HybridLm::Layer::forward(const Tensor& x, StateUpdate& state) const {
  NormAndSum stream = mixer_norm_.add(x);
  stream = feed_forward_norm_.add(mixer_.forward(stream.normed, state, name_, stream.sum));
  return feed_forward_.forward(stream.normed, stream.sum);
}

void HybridLm::Layer::visit(Visitor& visitor) {
  visitor.child("mixer_norm", mixer_norm_);
  visitor.child("mixer", mixer_);
  visitor.child("feed_forward_norm", feed_forward_norm_);
  visitor.child("feed_forward", feed_forward_);
}

HybridLm::HybridLm(const HybridLmConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.num_tokens, config.dim, init),
      layers_([&] {
        std::vector<Layer> layers;
        for (int64_t index = 0; index < config.depth; ++index) layers.emplace_back(config, index, init);
        return layers;
      }()),
      norm_(config.dim),
      to_logits_(config.dim, config.num_tokens, Bias::none, init) {}

Tensor HybridLm::forward(const Tensor& tokens, State* state, Generator* /*dropout*/, const Tensor& padding) {
  StateUpdate update(HybridLmConfig::kType, state, tokens, padding);
  const Tensor x = run_layers(recomputes(), layers_, embedding_.forward(tokens), update);
  const Tensor logits = to_logits_.forward(norm_.forward(x));
  update.commit();
  return logits;
}

void HybridLm::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  for (size_t i = 0; i < layers_.size(); ++i) visitor.child(str("layers.", i), layers_[i]);
  visitor.child("norm", norm_);
  visitor.child("to_logits", to_logits_);
}

}  // namespace monoid

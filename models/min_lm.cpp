#include "monoid/models/min_lm.h"

#include "monoid/layers/recompute.h"
#include "monoid/ops/elementwise.h"

namespace monoid {
namespace {

std::variant<MinGru, MinLstm> make_mixer(const MinLmConfig& config, Generator& init) {
  // The reference projects out wherever expansion is not 1, even if int() brings the width back to dim.
  const MinRnnOptions options{.channels = config.dim, .inner = config.inner(), .project_out = config.expansion != 1};
  if (config.use_lstm) return MinLstm(options, init);
  return MinGru(options, init);
}

}  // namespace

int64_t MinLmConfig::parameters() const {
  const int64_t wide = feed_forward_inner(), projections = use_lstm ? 3 : 2;
  const int64_t conv = enable_conv ? dim * conv_kernel_size + dim + dim * dim + dim : 0;
  const int64_t mixer = projections * dim * inner() + (expansion != 1 ? inner() * dim : 0);
  const int64_t feed_forward = 2 * dim * wide + wide + dim;
  return depth * (conv + mixer + feed_forward + 2 * dim) + dim + 2 * num_tokens * dim;
}

void MinLmConfig::visit(ConfigVisitor& visitor) {
  visitor.key("num_tokens", num_tokens);
  visitor.key("dim", dim);
  visitor.key("depth", depth);
  visitor.key("ff_mult", ff_mult);
  visitor.key("expansion", expansion);
  visitor.key("conv_kernel_size", conv_kernel_size);
  visitor.key("use_lstm", use_lstm);
  visitor.key("enable_conv", enable_conv);
  visitor.key("dropout", dropout);
}

void MinLmConfig::validate() const {
  check_range(kType, "num_tokens", num_tokens, 1);
  check_range(kType, "dim", dim, 1);
  check_range(kType, "depth", depth, 1);
  check_range(kType, "conv_kernel_size", conv_kernel_size, 1);
  check_width(kType, "dim * expansion", static_cast<double>(dim) * expansion);
  check_width(kType, "dim * ff_mult", static_cast<double>(dim) * ff_mult);
  check_probability(kType, "dropout", dropout);
}

MinLm::Layer::Layer(const MinLmConfig& config, int64_t index, Generator& init)
    : inner_(config.inner()),
      tail_(config.conv_kernel_size - 1),
      hidden_name_(str("layers.", index, ".hidden")),
      tail_name_(str("layers.", index, ".conv_tail")),
      conv_(config.enable_conv
                ? std::optional<CausalSeparableConv>(std::in_place, config.dim, config.conv_kernel_size, init)
                : std::nullopt),
      mixer_norm_(config.dim),
      mixer_(make_mixer(config, init)),
      feed_forward_norm_(config.dim),
      feed_forward_(config.dim, config.feed_forward_inner(), Bias::learned, init),
      dropout_(config.dropout) {}

Tensor MinLm::Layer::forward(Tensor x, StateUpdate& state, Generator* dropout) const {
  const int64_t batch = x.size(0);
  if (conv_) {
    const Tensor tail = state.before(tail_name_, {batch, tail_, x.size(2)});
    const OutputAndState conv = conv_->forward(state.padding().zeroed(x), tail, x);
    state.after(tail_name_, conv.state);
    x = conv.output;
  }
  const Tensor hidden = state.before(hidden_name_, {batch, inner_});
  const OutputAndState mixed =
      std::visit([&](const auto& mixer) { return mixer.on_stream(mixer_norm_, x, hidden, state.padding()); }, mixer_);
  state.after(hidden_name_, mixed.state);
  return dropout_.forward(feed_forward_.on_stream(feed_forward_norm_, mixed.output), dropout);
}

void MinLm::Layer::visit(Visitor& visitor) {
  if (conv_) visitor.child("conv", *conv_);
  visitor.child("mixer_norm", mixer_norm_);
  std::visit([&](auto& mixer) { visitor.child("mixer", mixer); }, mixer_);
  visitor.child("feed_forward_norm", feed_forward_norm_);
  visitor.child("feed_forward", feed_forward_);
}

MinLm::MinLm(const MinLmConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.num_tokens, config.dim, init),
      layers_([&] {
        std::vector<Layer> layers;
        for (int64_t index = 0; index < config.depth; ++index) layers.emplace_back(config, index, init);
        return layers;
      }()),
      norm_(config.dim),
      to_logits_(config.dim, config.num_tokens, Bias::none, init) {}

Tensor MinLm::forward(const Tensor& tokens, State* state, Generator* dropout, const Tensor& padding) {
  StateUpdate update(MinLmConfig::kType, state, tokens, padding);
  const Tensor x = run_layers(recomputes(), layers_, embedding_.forward(tokens), update, dropout);
  const Tensor logits = to_logits_.after(norm_, x).output;
  update.commit();
  return logits;
}

void MinLm::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  for (size_t i = 0; i < layers_.size(); ++i) visitor.child(str("layers.", i), layers_[i]);
  visitor.child("norm", norm_);
  visitor.child("to_logits", to_logits_);
}

}  // namespace monoid

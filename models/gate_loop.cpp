#include "monoid/models/gate_loop.h"

#include "monoid/layers/recompute.h"

namespace monoid {
namespace {

GateLoopOptions recurrence(const GateLoopConfig& config) {
  return {.transition = config.ablate_state_transition ? Transition::one
                        : config.ablate_complex        ? Transition::real
                                                       : Transition::complex,
          .gradient_fraction = config.frac_gradient_state_transition};
}

}  // namespace

GateLoopedAttentionOptions GateLoopConfig::gate_looped() const {
  const int64_t inner = dim_gate_looped_attn.value_or(dim);
  return {.channels = dim,
          .inner = inner,
          .heads = gate_loop_heads.value_or(inner),
          .swish_gating = attn_add_swish_gating,
          .sub_norm = sub_ln,
          .recurrence = recurrence(*this)};
}

CausalFullAttentionOptions GateLoopConfig::full_attention() const {
  return {.channels = dim,
          .heads = heads,
          .head_channels = dim_head,
          .softmax = attn_softmax_normalize.value_or(!data_dependent_rel_pos),
          .rotary = rotary_emb,
          .swish_gating = attn_add_swish_gating,
          .relative_positions = data_dependent_rel_pos,
          .recurrence = recurrence(*this)};
}

int64_t GateLoopConfig::parameters() const {
  const int64_t wide = feed_forward_inner(), norm = (post_ln_norm ? 2 : 1) * dim;
  const int64_t mixer = use_gate_looped_attn ? gate_looped().parameters() : full_attention().parameters();
  const int64_t feed_forward = 2 * dim * wide + wide + dim;
  return depth * (mixer + feed_forward + 2 * norm) + (post_ln_norm ? 0 : dim) + 2 * num_tokens * dim;
}

void GateLoopConfig::visit(ConfigVisitor& visitor) {
  visitor.key("num_tokens", num_tokens);
  visitor.key("dim", dim);
  visitor.key("depth", depth);
  visitor.key("dim_head", dim_head);
  visitor.key("heads", heads);
  visitor.key("ff_mult", ff_mult);
  visitor.key("use_gate_looped_attn", use_gate_looped_attn);
  visitor.key("gate_loop_heads", gate_loop_heads);
  visitor.key("dim_gate_looped_attn", dim_gate_looped_attn);
  visitor.key("attn_add_swish_gating", attn_add_swish_gating);
  visitor.key("attn_softmax_normalize", attn_softmax_normalize);
  visitor.key("data_dependent_rel_pos", data_dependent_rel_pos);
  visitor.key("frac_gradient_state_transition", frac_gradient_state_transition);
  visitor.key("ablate_complex", ablate_complex);
  visitor.key("ablate_state_transition", ablate_state_transition);
  visitor.key("rotary_emb", rotary_emb);
  visitor.key("post_ln_norm", post_ln_norm);
  visitor.key("sub_ln", sub_ln);
  visitor.key("checkpoint_gate_looped_attn", checkpoint_gate_looped_attn);
}

void GateLoopConfig::validate() const {
  check_range(kType, "num_tokens", num_tokens, 1);
  check_range(kType, "dim", dim, 1);
  check_range(kType, "depth", depth, 1);
  check_range(kType, "dim_head", dim_head, 1);
  check_range(kType, "heads", heads, 1);
  check_width(kType, "heads * dim_head", static_cast<double>(heads) * static_cast<double>(dim_head));
  check_width(kType, "dim * ff_mult", static_cast<double>(dim) * ff_mult);
  if (gate_loop_heads) check_range(kType, "gate_loop_heads", *gate_loop_heads, 1);
  if (dim_gate_looped_attn) check_range(kType, "dim_gate_looped_attn", *dim_gate_looped_attn, 1);
  const GateLoopedAttentionOptions loop = gate_looped();
  check(loop.inner % loop.heads == 0, kType, ": gate_loop_heads is ", loop.heads, ", wanted a divisor of ",
        dim_gate_looped_attn ? "dim_gate_looped_attn" : "dim", ", ", loop.inner);
  const double fraction = frac_gradient_state_transition;
  check(fraction >= 0 && fraction <= 1, kType, ": frac_gradient_state_transition is ", fraction, ", wanted 0 to 1");
  check(use_gate_looped_attn || dim_head % 2 == 0 || !(rotary_emb || data_dependent_rel_pos), kType, ": dim_head is ",
        dim_head, ", wanted an even number: positions belong to pairs of channels");
}

// ------------------------------------------------------------------------------------------------------------- layer

GateLoop::Layer::Layer(const GateLoopConfig& config, int64_t index, Generator& init)
    : name_(str("layers.", index)),
      norms_([&]() -> decltype(norms_) {
        if (config.post_ln_norm) return Norms<LayerNorm>{LayerNorm(config.dim), LayerNorm(config.dim)};
        return Norms<RmsNorm>{length_norm(config.dim), length_norm(config.dim)};
      }()),
      mixer_([&]() -> decltype(mixer_) {
        if (config.use_gate_looped_attn) return GateLoopedAttention(config.gate_looped(), init);
        return CausalFullAttention(config.full_attention(), init);
      }()),
      feed_forward_(config.dim, config.feed_forward_inner(), Bias::learned, init) {}

Tensor GateLoop::Layer::forward(const Tensor& x, StateUpdate& state) const {
  const auto mixed = [&](const Tensor& input, const Tensor& residual) {
    return std::visit([&](const auto& mixer) { return mixer.forward(input, state, name_, residual); }, mixer_);
  };
  if (const auto* after = std::get_if<Norms<LayerNorm>>(&norms_)) {
    const Tensor y = after->mixer.forward(mixed(x, x));
    return after->feed_forward.forward(feed_forward_.forward(y, y));
  }
  const auto& before = std::get<Norms<RmsNorm>>(norms_);
  const NormAndSum stream = before.mixer.add(x);
  return feed_forward_.on_stream(before.feed_forward, mixed(stream.normed, stream.sum));
}

// The two kinds of norms have names of their own, as the reference's do.
void GateLoop::Layer::visit(Visitor& visitor) {
  const auto norms = [&](const std::string& kind, auto& pair) {
    visitor.child("mixer_" + kind, pair.mixer);
    visitor.child("feed_forward_" + kind, pair.feed_forward);
  };
  if (auto* after = std::get_if<Norms<LayerNorm>>(&norms_)) norms("post_norm", *after);
  if (auto* before = std::get_if<Norms<RmsNorm>>(&norms_)) norms("norm", *before);
  std::visit([&](auto& mixer) { visitor.child("mixer", mixer); }, mixer_);
  visitor.child("feed_forward", feed_forward_);
}

// ------------------------------------------------------------------------------------------------------------- model

GateLoop::GateLoop(const GateLoopConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.num_tokens, config.dim, init),
      layers_([&] {
        std::vector<Layer> layers;
        for (int64_t index = 0; index < config.depth; ++index) layers.emplace_back(config, index, init);
        return layers;
      }()),
      to_logits_(config.dim, config.num_tokens, Bias::none, init) {
  if (!config.post_ln_norm) norm_ = length_norm(config.dim);
}

Tensor GateLoop::forward(const Tensor& tokens, State* state, Generator* /*dropout*/, const Tensor& padding) {
  StateUpdate update(GateLoopConfig::kType, state, tokens, padding);
  const Tensor x = run_layers(recomputes(), layers_, embedding_.forward(tokens), update);
  const Tensor logits = norm_ ? to_logits_.after(*norm_, x).output : to_logits_.forward(x);
  update.commit();
  return logits;
}

bool GateLoop::has_bounded_state() const {
  return config_.use_gate_looped_attn || config_.full_attention().has_bounded_state();
}

void GateLoop::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  for (size_t i = 0; i < layers_.size(); ++i) visitor.child(str("layers.", i), layers_[i]);
  if (norm_) visitor.child("norm", *norm_);
  visitor.child(norm_ ? "to_logits" : "head", to_logits_);
}

}  // namespace monoid

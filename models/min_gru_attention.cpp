#include "monoid/models/min_gru_attention.h"

#include <algorithm>

#include "monoid/layers/recompute.h"
#include "monoid/ops/matmul.h"

namespace monoid {
namespace {

Bias bias_if(bool wanted) { return wanted ? Bias::learned : Bias::none; }

}  // namespace

bool MinGruAttentionConfig::is_attention(int64_t layer) const {
  return std::ranges::find(attention_layers_idx, layer) != attention_layers_idx.end();
}

GroupedAttentionOptions MinGruAttentionConfig::attention() const {
  return {.channels = hidden_size,
          .heads = num_attention_heads,
          .key_heads = num_key_value_heads,
          .head_channels = head_dim(),
          .bias = bias_if(use_attention_bias),
          .deviation = initializer_range};
}

RotaryEmbeddingOptions MinGruAttentionConfig::rotary() const {
  RotaryEmbeddingOptions options{.rotated = head_dim(), .theta = rope_theta};
  if (rope_scaling && rope_scaling->type != "default") {
    using Kind = RotaryScaling::Kind;
    options.scaling = {.kind = rope_scaling->type == "dynamic" ? Kind::dynamic : Kind::linear,
                       .factor = rope_scaling->factor,
                       .trained_time = max_position_embeddings};
  }
  return options;
}

int64_t MinGruAttentionConfig::parameters() const {
  const int64_t conv = hidden_size * (conv_kernel_size + (use_conv_bias ? 1 : 0));
  const int64_t recurrence = 2 * inner() * (hidden_size + (use_mingru_bias ? 1 : 0)) +
                             (gru_expansion_factor != 1 ? inner() * hidden_size : 0) + conv;
  const int64_t mlp = 2 * hidden_size * mlp_inner() + (use_mlp_bias ? hidden_size + mlp_inner() : 0);
  int64_t all = (tie_word_embeddings ? 1 : 2) * vocab_size * hidden_size + hidden_size;
  for (int64_t layer = 0; layer < num_hidden_layers; ++layer)
    all += 2 * hidden_size + mlp + (is_attention(layer) ? attention().parameters() : recurrence);
  return all;
}

void MinGruAttentionConfig::visit(ConfigVisitor& visitor) {
  visitor.key("vocab_size", vocab_size);
  visitor.key("pad_token_id", pad_token_id);
  visitor.key("bos_token_id", bos_token_id);
  visitor.key("eos_token_id", eos_token_id);
  visitor.key("hidden_size", hidden_size);
  visitor.key("gru_expansion_factor", gru_expansion_factor);
  visitor.key("conv_kernel_size", conv_kernel_size);
  visitor.key("mlp_expansion_factor", mlp_expansion_factor);
  visitor.key("attention_head_dim", attention_head_dim);
  visitor.key("num_attention_heads", num_attention_heads);
  visitor.key("num_key_value_heads", num_key_value_heads);
  visitor.key("use_mingru_bias", use_mingru_bias);
  visitor.key("use_conv_bias", use_conv_bias);
  visitor.key("use_attention_bias", use_attention_bias);
  visitor.key("use_mlp_bias", use_mlp_bias);
  std::optional<std::vector<int64_t>> attention_layers = attention_layers_idx;  // null: those by default
  visitor.key("attention_layers_idx", attention_layers);
  attention_layers_idx = attention_layers.value_or(MinGruAttentionConfig().attention_layers_idx);
  visitor.key("num_hidden_layers", num_hidden_layers);
  visitor.key("rms_norm_epsilon", rms_norm_epsilon);
  visitor.key("mlp_hidden_act", mlp_hidden_act);
  visitor.key("conv_hidden_act", conv_hidden_act);
  visitor.key("initializer_range", initializer_range);
  visitor.key("max_position_embeddings", max_position_embeddings);
  visitor.key("rope_theta", rope_theta);
  visitor.key("rope_scaling", rope_scaling);
  visitor.key("use_cache", use_cache);
  visitor.key("tie_word_embeddings", tie_word_embeddings);
}

void MinGruAttentionConfig::validate() const {
  check_range(kType, "vocab_size", vocab_size, 1);
  check_range(kType, "hidden_size", hidden_size, 1);
  check_range(kType, "gru_expansion_factor", gru_expansion_factor, 1);
  check_range(kType, "conv_kernel_size", conv_kernel_size, 1);
  check_range(kType, "mlp_expansion_factor", mlp_expansion_factor, 1);
  check_range(kType, "num_attention_heads", num_attention_heads, 1);
  check_range(kType, "attention_head_dim", head_dim(), 2);
  check_range(kType, "num_key_value_heads", num_key_value_heads, 1);
  check_range(kType, "num_hidden_layers", num_hidden_layers, 1);
  check_range(kType, "max_position_embeddings", max_position_embeddings, 1);
  check_positive(kType, "rms_norm_epsilon", rms_norm_epsilon);
  check_positive(kType, "initializer_range", initializer_range);
  check_positive(kType, "rope_theta", rope_theta);
  check(head_dim() % 2 == 0, kType, ": attention_head_dim is ", head_dim(),
        ", wanted an even number: rotary positions turn pairs of channels");
  check(num_attention_heads % num_key_value_heads == 0, kType, ": num_attention_heads is ", num_attention_heads,
        ", wanted a multiple of num_key_value_heads, ", num_key_value_heads);
  for (const int64_t layer : attention_layers_idx) {
    check(layer >= 0 && layer < num_hidden_layers, kType, ": attention_layers_idx has ", layer,
          ", and the layers are 0 to ", num_hidden_layers - 1);
  }
  if (rope_scaling) {
    const std::string& type = rope_scaling->type;
    check(type == "default" || type == "linear" || type == "dynamic", kType, ": rope_scaling is of the type '", type,
          "', wanted default, linear or dynamic");
    check_positive(kType, "rope_scaling's factor", rope_scaling->factor);
    check(type != "dynamic" || head_dim() > 2, kType,
          ": dynamic rope_scaling wants an attention_head_dim of more than 2");
  }
  ActivationFunction(kType, "mlp_hidden_act", mlp_hidden_act);
  ActivationFunction(kType, "conv_hidden_act", conv_hidden_act);
}

// -------------------------------------------------------------------------------------------------------- recurrence

MinGruAttention::Recurrence::Recurrence(const MinGruAttentionConfig& config, Generator& init)
    : inner_(config.inner()),
      tail_(config.conv_kernel_size - 1),
      conv_(normal_parameter({config.hidden_size, config.conv_kernel_size}, config.initializer_range, init),
            zero_bias(config.hidden_size, bias_if(config.use_conv_bias))),
      activation_(MinGruAttentionConfig::kType, "conv_hidden_act", config.conv_hidden_act),
      min_gru_({.channels = config.hidden_size,
                .inner = config.inner(),
                .bias = bias_if(config.use_mingru_bias),
                .project_out = config.gru_expansion_factor != 1,
                .deviation = config.initializer_range},
               init) {}

Tensor MinGruAttention::Recurrence::forward(const Tensor& x, StateUpdate& state, const std::string& name,
                                            const Tensor& residual) const {
  const Padding& padding = state.padding();
  const OutputAndState conv =
      conv_.forward(padding.zeroed(x), state.before(name + ".conv_tail", {x.size(0), tail_, x.size(2)}));
  state.after(name + ".conv_tail", conv.state);
  const OutputAndState mixed = min_gru_.forward(activation_(conv.output),
                                                state.before(name + ".hidden", {x.size(0), inner_}), residual, padding);
  state.after(name + ".hidden", mixed.state);
  return mixed.output;
}

void MinGruAttention::Recurrence::visit(Visitor& visitor) {
  visitor.child("conv", conv_);
  visitor.child("min_gru", min_gru_);
}

// ------------------------------------------------------------------------------------------------------------- layer

MinGruAttention::Layer::Layer(const MinGruAttentionConfig& config, int64_t index, Generator& init)
    : name_(str("layers.", index)),
      mixer_norm_(config.hidden_size, config.rms_norm_epsilon),
      mixer_([&]() -> std::variant<Recurrence, GroupedAttention> {
        if (config.is_attention(index)) return GroupedAttention(config.attention(), init);
        return Recurrence(config, init);
      }()),
      mlp_norm_(config.hidden_size, config.rms_norm_epsilon),
      up_(normal_linear(config.hidden_size, config.mlp_inner(), bias_if(config.use_mlp_bias), config.initializer_range,
                        init)),
      down_(normal_linear(config.mlp_inner(), config.hidden_size, bias_if(config.use_mlp_bias),
                          config.initializer_range, init)),
      activation_(MinGruAttentionConfig::kType, "mlp_hidden_act", config.mlp_hidden_act) {}

Tensor MinGruAttention::Layer::forward(const Tensor& x, const std::optional<RotaryEmbedding::Turn>& turn,
                                       StateUpdate& state) const {
  NormAndSum stream = mixer_norm_.add(x);
  const auto* attention = std::get_if<GroupedAttention>(&mixer_);
  const Tensor mixed = attention ? attention->forward(stream.normed, *turn, state, name_, stream.sum)
                                 : std::get<Recurrence>(mixer_).forward(stream.normed, state, name_, stream.sum);
  stream = mlp_norm_.add(mixed);
  return down_.forward(activation_(up_.forward(stream.normed)), stream.sum);
}

void MinGruAttention::Layer::visit(Visitor& visitor) {
  visitor.child("mixer_norm", mixer_norm_);
  std::visit([&](auto& mixer) { visitor.child("mixer", mixer); }, mixer_);
  visitor.child("mlp_norm", mlp_norm_);
  visitor.child("up", up_);
  visitor.child("down", down_);
}

// ------------------------------------------------------------------------------------------------------------- model

MinGruAttention::MinGruAttention(const MinGruAttentionConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.vocab_size, config.hidden_size, init, config.initializer_range),
      rotary_(config.rotary()),
      layers_([&] {
        std::vector<Layer> layers;
        for (int64_t index = 0; index < config.num_hidden_layers; ++index) layers.emplace_back(config, index, init);
        return layers;
      }()),
      norm_(config.hidden_size, config.rms_norm_epsilon) {
  if (!config.tie_word_embeddings)
    head_.emplace(normal_linear(config.hidden_size, config.vocab_size, Bias::none, config.initializer_range, init));
}

Tensor MinGruAttention::forward(const Tensor& tokens, State* state, Generator*, const Tensor& padding) {
  StateUpdate update(MinGruAttentionConfig::kType, state, tokens, padding);
  Tensor x = embedding_.forward(tokens);
  const auto turn = std::make_shared<std::optional<RotaryEmbedding::Turn>>();  // still read where backward runs layers
  if (!config_.attention_layers_idx.empty()) *turn = rotary_.turn(update, x);
  for (const Layer& layer : layers_) {
    const auto call = [&layer, turn](const Tensors& read, StateUpdate& at, Generator*) {
      return Tensors{layer.forward(read[0], *turn, at)};
    };
    x = run_layer(recomputes(), {x}, update, nullptr, call)[0];
  }
  x = norm_.forward(x);
  const Tensor logits = head_ ? head_->forward(x) : linear(x, embedding_.weight());
  update.commit();
  return logits;
}

void MinGruAttention::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  for (size_t i = 0; i < layers_.size(); ++i) visitor.child(str("layers.", i), layers_[i]);
  visitor.child("norm", norm_);
  if (head_) visitor.child("head", *head_);
}

}  // namespace monoid

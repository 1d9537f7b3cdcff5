#include "monoid/models/mru_lm.h"

#include <algorithm>
#include <cmath>

#include "monoid/layers/recompute.h"
#include "monoid/ops/matmul.h"

namespace monoid {
namespace {

constexpr double kDeviation = 0.02;
constexpr int64_t kWider = 4;  // the inside of an mlp layer

std::variant<MatrixRecurrent, XPosAttention, FeedForward> make_mixer(const MruLmConfig& config, const std::string& kind,
                                                                     Generator& init) {
  if (kind == "mru") return MatrixRecurrent(config.mru(), init);
  if (kind == "attn") return XPosAttention(config.attention(), init);
  const int64_t channels = config.embedding_size, inner = kWider * channels;
  Linear up = normal_linear(channels, inner, Bias::none, kDeviation, init);
  return FeedForward(std::move(up), normal_linear(inner, channels, Bias::none, config.out_deviation(), init));
}

}  // namespace

bool MruLmConfig::has(const std::string& layer) const {
  return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

MatrixRecurrentOptions MruLmConfig::mru() const {
  return {.channels = embedding_size,
          .heads = n_state_heads,
          .state_size = state_size,
          .dropout = dropout_rate,
          .out_deviation = out_deviation()};
}

XPosAttentionOptions MruLmConfig::attention() const {
  return {.channels = embedding_size,
          .heads = n_attn_heads,
          .key_size = key_size,
          .value_size = value_size,
          .dropout = dropout_rate,
          .deviation = kDeviation,
          .out_deviation = out_deviation()};
}

double MruLmConfig::out_deviation() const { return kDeviation / std::sqrt(static_cast<double>(layers.size())); }

int64_t MruLmConfig::parameters() const {
  int64_t all = vocab_size * embedding_size + embedding_size;
  for (const std::string& layer : layers) {
    all += embedding_size;
    all += layer == "mru"    ? mru().parameters()
           : layer == "attn" ? attention().parameters()
                             : 2 * kWider * embedding_size * embedding_size;
  }
  return all;
}

void MruLmConfig::visit(ConfigVisitor& visitor) {
  visitor.key("vocab_size", vocab_size);
  visitor.key("embedding_size", embedding_size);
  visitor.key("dropout_rate", dropout_rate);
  visitor.key("n_state_heads", n_state_heads);
  visitor.key("state_size", state_size);
  visitor.key("n_attn_heads", n_attn_heads);
  visitor.key("key_size", key_size);
  visitor.key("value_size", value_size);
  visitor.key("layers", layers);
  visitor.key("max_sequence_length", max_sequence_length);
}

void MruLmConfig::validate() const {
  check_range(kType, "vocab_size", vocab_size, 1);
  check_range(kType, "embedding_size", embedding_size, 1);
  check_probability(kType, "dropout_rate", dropout_rate);
  check_range(kType, "n_state_heads", n_state_heads, 1);
  check_range(kType, "state_size", state_size, 1);
  check_range(kType, "n_attn_heads", n_attn_heads, 1);
  check_range(kType, "key_size", key_size, 1);
  check_range(kType, "value_size", value_size, 1);
  check_range(kType, "max_sequence_length", max_sequence_length, 1);
  check(!layers.empty(), kType, ": layers is empty, wanted a list of mru, attn and mlp");
  for (const std::string& layer : layers)
    check(layer == "mru" || layer == "attn" || layer == "mlp", kType, ": a layer is '", layer,
          "', wanted mru, attn or mlp");
  if (has("mru")) mru().validate(kType);
  if (has("attn")) attention().validate(kType);
}

MruLm::Layer::Layer(const MruLmConfig& config, size_t index, Generator& init)
    : name(str("layers.", index)),
      norm(config.embedding_size, Bias::none),
      mixer(make_mixer(config, config.layers[index], init)),
      dropout(config.dropout_rate) {}

Tensor MruLm::Layer::forward(const Tensor& x, const Tensor& residual, const XPosRotation& rotation, StateUpdate& state,
                             Generator* generator) const {
  if (const auto* mru = std::get_if<MatrixRecurrent>(&mixer)) {
    const Tensor before = state.before(name + ".matrices", mru->state_shape(x.size(0)));
    const OutputAndState mixed = mru->forward(x, before, residual, generator, state.padding());
    state.after(name + ".matrices", mixed.state);
    return mixed.output;
  }
  if (const auto* attention = std::get_if<XPosAttention>(&mixer))
    return attention->forward(x, rotation, state, name, residual, generator);
  return dropout.forward(std::get<FeedForward>(mixer).forward(x, residual), generator);
}

void MruLm::Layer::visit(Visitor& visitor) {
  visitor.child("norm", norm);
  std::visit([&](auto& kind) { visitor.child("mixer", kind); }, mixer);
}

MruLm::MruLm(const MruLmConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.vocab_size, config.embedding_size, init, kDeviation),
      dropout_(config.dropout_rate),
      layers_([&] {
        std::vector<Layer> layers;
        for (size_t index = 0; index < config.layers.size(); ++index) layers.emplace_back(config, index, init);
        return layers;
      }()),
      norm_(config.embedding_size, Bias::none) {}

Tensor MruLm::forward(const Tensor& tokens, State* state, Generator* dropout, const Tensor& padding) {
  StateUpdate update(MruLmConfig::kType, state, tokens, padding);
  const bool drops = dropout && config_.dropout_rate > 0;
  const Tensor x = dropout_.forward(embedding_.forward(tokens), dropout);
  XPosRotation rotation;
  if (config_.has("attn"))
    rotation = xpos_rotation(config_.attention().key_channels(), config_.max_sequence_length, update, x);
  // A layer adds its output to the stream in its last product, or, where that must lose some first, the next norm does.
  Tensors streams{x};  // the last layer's output, and what it is still to be added to
  for (const Layer& layer : layers_) {
    const auto call = [&layer, drops, rotation](const Tensors& read, StateUpdate& at, Generator* random) {
      const NormAndSum stream = layer.norm.add(read[0], read.size() > 1 ? read[1] : Tensor());
      if (!drops) return Tensors{layer.forward(stream.normed, stream.sum, rotation, at, random)};
      return Tensors{layer.forward(stream.normed, {}, rotation, at, random), stream.sum};
    };
    streams = run_layer(recomputes(), streams, update, dropout, call);
  }
  const Tensor pending = streams.size() > 1 ? streams[1] : Tensor();
  const Tensor logits = linear(norm_.add(streams[0], pending).normed, embedding_.weight());
  update.commit();
  return logits;
}

std::vector<ParameterGroup> MruLm::parameter_groups(const OptimizerSettings& settings) {
  const auto context = static_cast<double>(settings.context > 0 ? settings.context : config_.max_sequence_length);
  ParameterGroup kept{.name = "embedding and norms", .weight_decay = 0.0, .clip_norm = settings.clip};
  ParameterGroup decaying{.name = "matrices", .weight_decay = settings.weight_decay, .clip_norm = settings.clip};
  ParameterGroup making{.name = "to_matrices",
                        .learning_rate_scale = std::sqrt(2 / context) / static_cast<double>(config_.mru().order()),
                        .weight_decay = settings.weight_decay,
                        .clip_norm = settings.clip * std::sqrt(context / 2)};
  for (const NamedTensor& parameter : parameters(*this)) {
    ParameterGroup& group = parameter.name.ends_with(".to_matrices")                             ? making
                            : parameter.name == "embedding.weight" || parameter.value.rank() < 2 ? kept
                                                                                                 : decaying;
    group.parameters.push_back(parameter.value);
  }
  std::vector<ParameterGroup> groups;
  for (ParameterGroup* group : {&kept, &decaying, &making}) {
    if (!group->parameters.empty()) groups.push_back(*group);
  }
  return groups;
}

void MruLm::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  for (Layer& layer : layers_) visitor.child(layer.name, layer);
  visitor.child("norm", norm_);
}

}  // namespace monoid

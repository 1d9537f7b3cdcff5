#include "monoid/models/mru_lm.h"

#include <cmath>

#include "monoid/core/parallel.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/models/model_support.h"

namespace monoid {
namespace {

// Each kind of layer alone and all together; keys and values of different sizes.
std::vector<MruLmConfig> variants() {
  const MruLmConfig base{.vocab_size = 11,
                         .embedding_size = 8,
                         .n_state_heads = 2,
                         .state_size = 8,
                         .n_attn_heads = 2,
                         .key_size = 4,
                         .value_size = 6,
                         .layers = {"mru", "mlp", "mru", "mlp"},
                         .max_sequence_length = 16};
  std::vector<MruLmConfig> all{base};
  for (const std::vector<std::string>& layers :
       std::vector<std::vector<std::string>>{{"attn", "mlp", "attn"}, {"mlp", "mru", "attn", "attn", "mru"}, {"mlp"}}) {
    all.push_back(base);
    all.back().layers = layers;
  }
  return all;
}

// At the start matrices are all the identity, and embeddings so small that a norm is steep: not here.
MruLm make(const MruLmConfig& config, DType dtype = DType::f64) {
  Generator init(1), more(2);
  MruLm model(config, init);
  for (NamedTensor& parameter : parameters(model)) {
    const bool is_embedding = parameter.name == "embedding.weight";
    if (is_embedding || parameter.name.ends_with(".to_matrices"))
      parameter.value.copy_from(random_normal(parameter.value.shape(), more, 0, is_embedding ? 0.3 : 0.1));
  }
  cast_to(model, dtype);
  return model;
}

MruLmConfig shakespeare(const std::string& mixer) {
  MruLmConfig config{.vocab_size = 65, .max_sequence_length = 256};
  for (std::string& layer : config.layers) layer = layer == "mru" ? mixer : layer;
  return config;
}

double deviation(const Tensor& x) { return std::sqrt(mean(square(x - mean(x))).item()); }

}  // namespace

TEST_CASE("MRU-LM's parameter count follows the closed form", "[mru_lm]") {
  for (const MruLmConfig& config : variants()) {
    MruLm model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
  CHECK(shakespeare("mru").parameters() == 8'879'616);
  CHECK(shakespeare("attn").parameters() == 10'646'784);
  Generator init(1);
  MruLm built(shakespeare("mru"), init);
  CHECK(parameter_count(built) == 8'879'616);
}

TEST_CASE("MRU-LM starts from its reference's distributions", "[mru_lm]") {
  MruLmConfig config = shakespeare("mru");
  config.layers = {"mru", "attn", "mlp", "mlp"};
  config.key_size = 192;
  Generator init(1);
  MruLm model(config, init);
  std::map<std::string, Tensor> named;
  for (const NamedTensor& parameter : parameters(model)) named[parameter.name] = parameter.value.detach();
  for (const auto& [name, expected] :
       std::map<std::string, double>{{"embedding.weight", 0.02},
                                     {"layers.0.mixer.to_matrices", 0},
                                     {"layers.0.mixer.from_matrices", 0.02 * std::sqrt(8)},
                                     {"layers.0.mixer.to_out", 0.01},
                                     {"layers.1.mixer.to_query", 0.02},
                                     {"layers.1.mixer.to_key", 0.02},
                                     {"layers.1.mixer.to_value", 0.02},
                                     {"layers.1.mixer.attention_out", 0.01},
                                     {"layers.3.mixer.up.weight", 0.02},
                                     {"layers.3.mixer.down.weight", 0.01}}) {
    CAPTURE(name);
    REQUIRE(named.contains(name));
    const Tensor value = named[name];
    CHECK(deviation(value) == Approx(expected).epsilon(5 / std::sqrt(static_cast<double>(value.elements()))));
  }
  test::check_identical(named["layers.2.norm.weight"], Tensor::ones({384}));
  CHECK(named.size() == 2 + 4 + 3 + 4 + 2 * 2);  // embedding, norms, and no biases
}

TEST_CASE("MRU-LM passes the gradient check by every parameter and by its state", "[mru_lm][gradient]") {
  for (MruLmConfig config : variants()) {
    config.vocab_size = 5;
    CAPTURE(config.layers);
    MruLm model = make(config);
    test::check_model_gradients(model, test::tokens_of(model, {2, 3}));
  }
}

TEST_CASE("MRU-LM: one call, chunks and single steps give the same logits and state", "[mru_lm][streaming]") {
  for (const MruLmConfig& config : variants()) {
    if (config.layers.size() == 1) continue;  // nothing to remember
    CAPTURE(config.layers);
    MruLm in_double = make(config), in_float = make(config, DType::f32);
    test::check_model_streaming(in_double, 1e-12);
    test::check_model_streaming(in_float, 2e-5);
    test::check_gradients_through_state(in_double, 1e-11);
  }
}

TEST_CASE("MRU-LM names its state, and goes on from a file bit for bit", "[mru_lm][streaming]") {
  MruLm model = make(variants()[2], DType::f32);
  State state;
  model.forward(test::tokens_of(model, {3, 1}), &state);
  std::set<std::string> names;
  for (const NamedTensor& entry : state.tensors()) names.insert(entry.name);
  CHECK(names == std::set<std::string>{"layers.1.matrices", "layers.2.keys", "layers.2.values", "layers.3.keys",
                                       "layers.3.values", "layers.4.matrices", "steps"});
  CHECK(state.find("layers.4.matrices").shape() == Shape{3, 2, 2, 2});
  CHECK_FALSE(model.has_bounded_state());
  for (const MruLmConfig& config : variants()) {
    MruLm each = make(config, DType::f32);
    if (config.layers.size() > 1) test::check_state_through_file(each);
  }
  MruLm recurrent = make(variants().front(), DType::f32);
  CHECK(recurrent.has_bounded_state());
  State other;
  recurrent.forward(test::tokens_of(recurrent, {3, 1}), &other);
  CHECK_THROWS_WITH(recurrent.forward(test::tokens_of(recurrent, {2, 4}), &other),
                    ContainsSubstring("mru-lm: the state's 'layers.0.matrices' is f32[3, 2, 2, 2]"));
}

TEST_CASE("MRU-LM sees nothing that comes later", "[mru_lm]") {
  for (const MruLmConfig& config : variants()) {
    MruLm model = make(config);
    const Tensor tokens = test::tokens_of(model, {1, 9});
    Tensor changed = tokens.clone();
    changed.data<int64_t>()[5] = (changed.data<int64_t>()[5] + 1) % model.vocabulary();
    const Tensor difference = abs(model.forward(changed) - model.forward(tokens));
    CHECK(sum(slice(difference, 1, 0, 5)).item() == 0);
    CHECK(sum(slice(difference, 1, 5, 9)).item() > 0);
  }
}

TEST_CASE("MRU-LM's loss reaches every parameter", "[mru_lm]") {
  for (const MruLmConfig& config : variants()) {
    MruLm model = make(config);
    test::check_gradient_reaches_all_but(model, {});
  }
}

TEST_CASE("MRU-LM drops out the same on its two ways through the residual stream", "[mru_lm]") {
  MruLmConfig config = variants()[2];
  const MruLmConfig kept = config;
  config.dropout_rate = 0.3;
  MruLm model = make(config), plain = make(kept);
  const Tensor tokens = test::tokens_of(model, {2, 12});
  test::check_identical(model.forward(tokens), plain.forward(tokens));
  Generator first(9), again(9), other(10);
  const Tensor dropped = model.forward(tokens, nullptr, &first);
  test::check_identical(model.forward(tokens, nullptr, &again), dropped);
  CHECK(model.forward(tokens, nullptr, &other).to_vector<double>() != dropped.to_vector<double>());
  // A rate so small that nothing is lost takes the other way through the layers: the same numbers.
  config.dropout_rate = 1e-12;
  MruLm careful = make(config);
  test::check_close_in_norm(careful.forward(tokens, nullptr, &first), plain.forward(tokens), 1e-10);
}

TEST_CASE("MRU-LM trains three groups, each with a limit", "[mru_lm]") {
  MruLm model = make(variants()[2], DType::f32);
  const auto groups = model.parameter_groups({.weight_decay = 0.1, .clip = 2, .context = 128});
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].parameters.size() == 1 + 5 + 1);
  CHECK(groups[0].weight_decay == 0.0);
  CHECK(groups[0].clip_norm == 2);
  CHECK(groups[0].learning_rate_scale == 1);
  CHECK(groups[1].parameters.size() == 2 * 2 + 2 * 4 + 2);
  CHECK(groups[1].weight_decay == 0.1);
  CHECK(groups[1].clip_norm == 2);
  CHECK(groups[2].parameters.size() == 2);
  CHECK(groups[2].learning_rate_scale == Approx(std::sqrt(2.0 / 128) / 2));
  CHECK(groups[2].clip_norm == Approx(2 * 8));
  size_t all = 0;
  for (const ParameterGroup& group : groups) all += group.parameters.size();
  CHECK(all == parameters(model).size());
  CHECK(make(variants()[1]).parameter_groups({}).size() == 2);
  for (const ParameterGroup& group : model.parameter_groups({.context = 128})) CHECK(group.clip_norm == 0);
}

TEST_CASE("MRU-LM gives the same bits on any number of threads", "[mru_lm]") {
  const auto run = [&](int count) {
    const int before = threads();
    set_threads(count);
    MruLm model = make({.vocab_size = 40,
                        .embedding_size = 64,
                        .dropout_rate = 0.1,
                        .n_state_heads = 4,
                        .state_size = 64,
                        .n_attn_heads = 2,
                        .key_size = 32,
                        .value_size = 48,
                        .layers = {"mru", "mlp", "attn", "mlp"}},
                       DType::f32);
    Generator dropout(6);
    Tape tape;
    const Tensor loss =
        model.loss(test::tokens_of(model, {4, 130}), test::tokens_of(model, {4, 130}, 5), nullptr, &dropout);
    tape.backward(loss);
    Tensors results = test::gradients(model);
    results.push_back(loss.detach());
    set_threads(before);
    return results;
  };
  const Tensors one = run(1);
  for (const int count : {2, 5}) {
    const Tensors many = run(count);
    for (size_t i = 0; i < one.size(); ++i) test::check_identical(many[i], one[i]);
  }
}

TEST_CASE("MRU-LM refuses a configuration that makes no model", "[mru_lm]") {
  Generator init(1);
  CHECK_THROWS_WITH(MruLm({.vocab_size = 0}, init), ContainsSubstring("mru-lm: vocab_size is 0"));
  CHECK_THROWS_WITH(MruLm({.dropout_rate = 1}, init), ContainsSubstring("mru-lm: dropout_rate is 1"));
  CHECK_THROWS_WITH(MruLm({.layers = {}}, init), ContainsSubstring("layers is empty"));
  CHECK_THROWS_WITH(MruLm({.layers = {"mru", "gru"}}, init), ContainsSubstring("a layer is 'gru', wanted mru, attn"));
  CHECK_THROWS_WITH(MruLm({.state_size = 100}, init), ContainsSubstring("mru-lm: a state of 100 in 6 heads"));
  CHECK_THROWS_WITH(MruLm({.key_size = 390, .layers = {"attn"}}, init), ContainsSubstring("mru-lm: key_size is 390"));
  CHECK(MruLm({.key_size = 390}, init).vocabulary() == 256);  // no attention, no matter
}

}  // namespace monoid

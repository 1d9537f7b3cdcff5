#include "monoid/models/hybrid_lm.h"

#include "monoid/core/parallel.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/norm.h"
#include "monoid/ops/reduce.h"
#include "monoid/ops/scan.h"
#include "monoid/ops/softmax.h"
#include "monoid/tests/models/model_support.h"

namespace monoid {
namespace {

std::vector<HybridLmConfig> variants() {
  return {{.num_tokens = 11, .dim = 6, .depth = 2, .ff_mult = 2, .heads = 2, .dim_head = 4},
          {.num_tokens = 7, .dim = 5, .depth = 1, .ff_mult = 1.5, .heads = 3, .dim_head = 2, .convex_mix = true}};
}

HybridLm make(const HybridLmConfig& config, DType dtype = DType::f64) {
  Generator init(1);
  HybridLm model(config, init);
  cast_to(model, dtype);
  return model;
}

}  // namespace

TEST_CASE("hybridLM's parameter count follows the closed form", "[hybrid_lm]") {
  for (const HybridLmConfig& config : variants()) {
    HybridLm model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
  CHECK(HybridLmConfig{.num_tokens = 65, .dim = 384, .depth = 6, .heads = 6}.parameters() == 12'469'632);
}

TEST_CASE("HybridMixer mixes a minGRU and a softmax attention as the reference does, or convexly", "[hybrid_lm]") {
  const int64_t time = 7, channels = 6, heads = 2, width = 4, inner = heads * width;
  for (const bool convex_mix : {false, true}) {
    Generator init(3), numbers(4);
    HybridMixer mixer({.channels = channels, .heads = heads, .head_channels = width, .convex_mix = convex_mix}, init);
    cast_to(mixer, DType::f64);
    std::map<std::string, Tensor> weight;
    for (const NamedTensor& parameter : parameters(mixer)) {
      if (parameter.value.rank() == 1)
        Tensor(parameter.value).copy_from(random_normal(parameter.value.shape(), numbers, 1, 0.3, DType::f64));
      weight[parameter.name] = parameter.value;
    }
    const Tensor x = random_normal({2, time, channels}, numbers, 0, 1, DType::f64);
    StateUpdate update("test", nullptr, Tensor::zeros({2, time}, DType::i64));
    const Tensor output = mixer.forward(x, update, "layers.0");

    const auto heads_first = [&](const Tensor& packed) {
      return transpose(reshape(packed, {2, time, heads, width}), 1, 2);
    };
    const Tensors qkv = split(linear(x, weight.at("to_qkv.weight")), 2, {inner, inner, inner});
    Tensor scores = matmul(heads_first(qkv[0]), transpose(heads_first(qkv[1]), 2, 3)) * 0.5;  // width^-0.5
    const Tensor step = Tensor::arange(time, DType::f64);
    const Tensor later = less(reshape(step, {time, 1}), reshape(step, {1, time}));
    scores = where(later, Tensor::scalar(-1e300, DType::f64), scores);
    const Tensor attended = rms_norm(matmul(softmax(scores), heads_first(qkv[2])), weight.at("attn_out_norm.weight"));
    const Tensor states = min_gru_scan(linear(x, weight.at("rnn.to_hidden_and_gate.weight"))).states;
    const Tensor recalled = rms_norm(heads_first(states), weight.at("rnn_out_norm.weight"));
    const Tensor logit = linear(rms_norm(x, weight.at("mix_norm.weight")), weight.at("to_mix.weight"));
    const Tensor mix = reshape(transpose(sigmoid(logit), 1, 2), {2, heads, time, 1});
    const Tensor mixed =
        convex_mix ? mix * recalled + (1 - mix) * attended : mix * recalled + mix * (1 - mix) * attended;
    const Tensor expected = linear(reshape(transpose(mixed, 1, 2), {2, time, inner}), weight.at("to_out.weight"));
    test::check_close_in_norm(output, expected, 1e-12);
  }
}

TEST_CASE("hybridLM passes the gradient check by every parameter and by its state", "[hybrid_lm][gradient]") {
  for (HybridLmConfig config : variants()) {
    config.num_tokens = 5;
    HybridLm model = make(config);
    test::check_model_gradients(model, test::tokens_of(model, {2, 3}));
  }
}

TEST_CASE("hybridLM: one call, chunks and single steps give the same logits and state", "[hybrid_lm][streaming]") {
  for (const HybridLmConfig& config : variants()) {
    HybridLm in_double = make(config), in_float = make(config, DType::f32);
    test::check_model_streaming(in_double, 1e-12);
    test::check_model_streaming(in_float, 2e-5);
    test::check_gradients_through_state(in_double, 1e-11);
    test::check_state_through_file(in_float);
  }
}

TEST_CASE("hybridLM's loss reaches every parameter, and nothing that comes later reaches a logit", "[hybrid_lm]") {
  for (const HybridLmConfig& config : variants()) {
    HybridLm model = make(config);
    test::check_gradient_reaches_all_but(model, {});
    const Tensor tokens = test::tokens_of(model, {1, 9});
    Tensor changed = tokens.clone();
    changed.data<int64_t>()[5] = (changed.data<int64_t>()[5] + 1) % model.vocabulary();
    const Tensor difference = abs(model.forward(changed) - model.forward(tokens));
    CHECK(sum(slice(difference, 1, 0, 5)).item() == 0);
    CHECK(sum(slice(difference, 1, 5, 9)).item() > 0);
  }
}

TEST_CASE("hybridLM gives the same bits on any number of threads", "[hybrid_lm]") {
  const auto run = [&](int count) {
    const int before = threads();
    set_threads(count);
    HybridLm model = make({.num_tokens = 40, .dim = 48, .depth = 2, .heads = 3, .dim_head = 16}, DType::f32);
    Tape tape;
    const Tensor loss = model.loss(test::tokens_of(model, {4, 130}), test::tokens_of(model, {4, 130}, 5));
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

TEST_CASE("hybridLM refuses a configuration that makes no model", "[hybrid_lm]") {
  Generator init(1);
  CHECK_THROWS_WITH(HybridLm({.heads = 0}, init), ContainsSubstring("hybridlm: heads is 0"));
  CHECK_THROWS_WITH(HybridLm({.ff_mult = 0}, init), ContainsSubstring("dim * ff_mult is 0"));
}

}  // namespace monoid

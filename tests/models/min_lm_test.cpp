#include "monoid/models/min_lm.h"

#include <cmath>

#include "monoid/core/parallel.h"
#include "monoid/ops/dropout.h"
#include "monoid/ops/embedding.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/norm.h"
#include "monoid/tests/models/model_support.h"

namespace monoid {
namespace {

// Every switch at least once: recurrence, convolution, widths, and a projection forced by expansion != 1 alone.
std::vector<MinLmConfig> variants() {
  const MinLmConfig base{.num_tokens = 11, .dim = 6, .depth = 2, .ff_mult = 2, .expansion = 1.5};
  std::vector<MinLmConfig> all;
  for (const bool use_lstm : {false, true}) {
    for (const bool enable_conv : {false, true}) {
      for (const double expansion : {1.0, 1.5, 1.1}) {
        MinLmConfig config = base;
        config.use_lstm = use_lstm;
        config.enable_conv = enable_conv;
        config.expansion = expansion;
        all.push_back(config);
      }
    }
  }
  all.push_back({.num_tokens = 5,
                 .dim = 3,
                 .depth = 3,
                 .ff_mult = 1.5,
                 .expansion = 2,
                 .conv_kernel_size = 5,
                 .enable_conv = true});
  all.push_back({.num_tokens = 5,
                 .dim = 1,
                 .depth = 1,
                 .ff_mult = 4,
                 .expansion = 1,
                 .conv_kernel_size = 1,
                 .enable_conv = true});
  return all;
}

MinLm make(const MinLmConfig& config, DType dtype = DType::f64, uint64_t seed = 1) {
  Generator init(seed);
  MinLm model(config, init);
  cast_to(model, dtype);
  return model;
}

Tensor tokens_of(const MinLmConfig& config, const Shape& shape, uint64_t seed = 2) {
  Generator generator(seed);
  return random_integers(shape, generator, config.num_tokens);
}

}  // namespace

TEST_CASE("minLM's parameter count follows the closed form, for every variant", "[minlm]") {
  for (const MinLmConfig& config : variants()) {
    CAPTURE(config.use_lstm, config.enable_conv, config.expansion);
    MinLm model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
  MinLmConfig published{.num_tokens = 65, .dim = 384, .depth = 6};
  CHECK(published.parameters() == 11'125'632);
  MinLm built = make(published, DType::f32);
  CHECK(parameter_count(built) == 11'125'632);
  published.use_lstm = true;
  CHECK(published.parameters() == 12'452'736);
}

TEST_CASE("minLM's widths are cut to integers as Python's int() does", "[minlm]") {
  CHECK(MinLmConfig{.dim = 3, .expansion = 1.5}.inner() == 4);
  CHECK(MinLmConfig{.dim = 10, .ff_mult = 2.99}.feed_forward_inner() == 29);
}

TEST_CASE("minLM passes the gradient check by every parameter and by its state, in every variant",
          "[minlm][gradient]") {
  for (MinLmConfig config : variants()) {
    config.num_tokens = 5;
    config.dim = std::min<int64_t>(config.dim, 4);
    config.depth = std::min<int64_t>(config.depth, 2);
    CAPTURE(config.use_lstm, config.enable_conv, config.expansion);
    MinLm model = make(config);
    test::check_model_gradients(model, tokens_of(config, {2, 3}));
  }
}

TEST_CASE("minLM: one call, chunks and single steps give the same logits and state, in every variant",
          "[minlm][streaming]") {
  for (const MinLmConfig& config : variants()) {
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-12}, {DType::f32, 1e-5}}) {
      MinLm model = make(config, dtype);
      test::check_model_streaming(model, tolerance);
    }
  }
}

TEST_CASE("minLM: gradients through a state carried on one tape equal those of one call", "[minlm][streaming]") {
  for (const MinLmConfig& config : variants()) {
    CAPTURE(config.use_lstm, config.enable_conv, config.expansion);
    MinLm model = make(config);
    test::check_gradients_through_state(model, 1e-11);
  }
}

TEST_CASE("minLM names its state, saves it, and goes on from the file bit for bit", "[minlm][streaming]") {
  const MinLmConfig config{.num_tokens = 11, .dim = 6, .depth = 2, .enable_conv = true};
  MinLm model = make(config, DType::f32);
  const Tensor tokens = tokens_of(config, {3, 20});
  State state;
  model.forward(contiguous(slice(tokens, 1, 0, 9)), &state);
  std::string names;
  for (const NamedTensor& entry : state.tensors()) names += entry.name + " ";
  CHECK(names == "layers.0.conv_tail layers.0.hidden layers.1.conv_tail layers.1.hidden ");
  CHECK(state.find("layers.1.hidden").shape() == Shape{3, 9});
  CHECK(state.find("layers.1.conv_tail").shape() == Shape{3, 2, 6});

  test::check_state_through_file(model);
}

TEST_CASE("minLM refuses a state of another batch or model, and an error leaves the state as it was",
          "[minlm][streaming]") {
  const MinLmConfig config{.num_tokens = 11, .dim = 6, .depth = 2};
  MinLm model = make(config);
  State state;
  model.forward(tokens_of(config, {3, 4}), &state);
  CHECK_THROWS_WITH(
      model.forward(tokens_of(config, {2, 4}), &state),
      ContainsSubstring("minlm: the state's 'layers.0.hidden' is f64[3, 9]") && ContainsSubstring("wanted [2, 9]"));
  MinLmConfig other = config;
  other.enable_conv = true;
  MinLm with_conv = make(other);
  CHECK_THROWS_WITH(with_conv.forward(tokens_of(config, {3, 4}), &state), ContainsSubstring("no 'layers.0.conv_tail'"));
  other = config;
  other.depth = 1;
  MinLm shallow = make(other);
  CHECK_THROWS_WITH(shallow.forward(tokens_of(config, {3, 4}), &state),
                    ContainsSubstring("also holds 'layers.1.hidden'"));
  CHECK(state.size() == 2);
  CHECK(state.find("layers.0.hidden").shape() == Shape{3, 9});
  CHECK_THROWS_WITH(model.forward(Tensor::zeros({4}, DType::i64)),
                    ContainsSubstring("tokens are i64[4], wanted [batch, time]"));
  CHECK_THROWS_WITH(model.loss(tokens_of(config, {2, 4}), tokens_of(config, {2, 3})), ContainsSubstring("targets"));
}

TEST_CASE("minLM's loss reaches every parameter, and starts near the logarithm of the vocabulary", "[minlm]") {
  for (MinLmConfig config : variants()) {
    config.dim = std::max<int64_t>(config.dim, 3);
    CAPTURE(config.use_lstm, config.enable_conv, config.expansion);
    MinLm model = make(config);
    test::check_gradient_reaches_all_but(model, {});
  }
}

TEST_CASE("minLM drops out only when given a generator, and the same generator drops the same", "[minlm]") {
  const MinLmConfig config{.num_tokens = 11, .dim = 16, .depth = 2, .dropout = 0.5};
  MinLm model = make(config, DType::f32);
  const Tensor tokens = tokens_of(config, {2, 8});
  const Tensor plain = model.forward(tokens);
  test::check_identical(model.forward(tokens), plain);
  Generator first(9), again(9), other(10);
  const Tensor dropped = model.forward(tokens, nullptr, &first);
  CHECK(dropped.to_vector<float>() != plain.to_vector<float>());
  test::check_identical(model.forward(tokens, nullptr, &again), dropped);
  CHECK(model.forward(tokens, nullptr, &other).to_vector<float>() != dropped.to_vector<float>());
}

TEST_CASE("the loss is the mean cross-entropy of the forward, with its state and its dropout", "[minlm]") {
  const MinLmConfig config{.num_tokens = 7, .dim = 8, .depth = 2, .dropout = 0.4};
  MinLm model = make(config);
  const Tensor tokens = tokens_of(config, {2, 5}), targets = tokens_of(config, {2, 5}, 3);
  State loss_state, forward_state;
  Generator loss_dropout(4), forward_dropout(4);
  for (int window = 0; window < 2; ++window) {
    const Tensor loss = model.loss(tokens, targets, &loss_state, &loss_dropout);
    const std::vector<double> logits = model.forward(tokens, &forward_state, &forward_dropout).to_vector<double>();
    const std::vector<int64_t> wanted = targets.to_vector<int64_t>();
    double total = 0;
    for (size_t row = 0; row < wanted.size(); ++row) {
      double sum = 0;
      for (size_t token = 0; token < 7; ++token) sum += std::exp(logits[row * 7 + token]);
      total += std::log(sum) - logits[row * 7 + static_cast<size_t>(wanted[row])];
    }
    CHECK(loss.item() == Approx(total / static_cast<double>(wanted.size())).epsilon(1e-12));
  }
}

TEST_CASE("minLM's dropout acts on the stream itself after each layer", "[minlm]") {
  const MinLmConfig config{.num_tokens = 7, .dim = 8, .depth = 2, .dropout = 0.4};
  MinLm model = make(config, DType::f32);
  std::map<std::string, Tensor> weights;
  for (NamedTensor& parameter : parameters(model)) {
    if (parameter.name.starts_with("layers.")) parameter.value.fill(0);  // every layer is the identity now
    weights[parameter.name] = parameter.value;
  }
  const Tensor tokens = tokens_of(config, {2, 5});
  Generator expected_generator(4), generator(4);
  Tensor x = embedding(weights.at("embedding.weight"), tokens);
  for (int layer = 0; layer < 2; ++layer) x = dropout(x, config.dropout, expected_generator);
  const Tensor expected = linear(rms_norm(x, weights.at("norm.weight")), weights.at("to_logits.weight"));
  test::check_identical(model.forward(tokens, nullptr, &generator), expected);
}

TEST_CASE("minLM gives the same bits on any number of threads", "[minlm]") {
  const MinLmConfig config{.num_tokens = 40, .dim = 48, .depth = 2, .enable_conv = true, .dropout = 0.1};
  const Tensor tokens = tokens_of(config, {4, 130}), targets = tokens_of(config, {4, 130}, 5);
  const auto run = [&](int count) {
    const int before = threads();
    set_threads(count);
    MinLm model = make(config, DType::f32);
    Generator dropout(6);
    Tape tape;
    const Tensor loss = model.loss(tokens, targets, nullptr, &dropout);
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

}  // namespace monoid

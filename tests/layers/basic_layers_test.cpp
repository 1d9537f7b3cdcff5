#include <cmath>
#include <functional>
#include <map>

#include "monoid/core/stream.h"
#include "monoid/layers/activation.h"
#include "monoid/layers/dropout.h"
#include "monoid/layers/embedding.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/norm.h"
#include "monoid/tests/layers/layer_support.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

struct Spread {
  double low = 1e300, high = -1e300, mean = 0, deviation = 0;
};

Spread spread(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_vector<double>();
  Spread s;
  for (double value : values) {
    s.low = std::min(s.low, value);
    s.high = std::max(s.high, value);
    s.mean += value / static_cast<double>(values.size());
  }
  for (double value : values) s.deviation += (value - s.mean) * (value - s.mean) / static_cast<double>(values.size());
  s.deviation = std::sqrt(s.deviation);
  return s;
}

Tensor parameter(Module& module, const std::string& name) {
  for (const NamedTensor& entry : parameters(module)) {
    if (entry.name == name) return entry.value;
  }
  return {};
}

Tensor normal(const Shape& shape) {
  static Generator generator(5);
  return random_normal(shape, generator, 0, 1, DType::f64);
}

}  // namespace

TEST_CASE("layers start as PyTorch's do: Linear uniform in 1/sqrt(in), Embedding N(0, 1), norms one", "[init]") {
  Generator init(1);
  Linear linear(100, 300, Bias::learned, init);
  const Spread weight = spread(parameter(linear, "weight")), bias = spread(parameter(linear, "bias"));
  CHECK(weight.low >= -0.1);
  CHECK(weight.low < -0.0999);
  CHECK(weight.high <= 0.1);
  CHECK(weight.high > 0.0999);
  CHECK(weight.deviation == Approx(0.1 / std::sqrt(3)).epsilon(0.02));
  CHECK(bias.high <= 0.1);
  CHECK(bias.high > 0.09);
  Embedding embedding(200, 100, init);
  const Spread rows = spread(parameter(embedding, "weight"));
  CHECK(std::abs(rows.mean) < 0.03);
  CHECK(rows.deviation == Approx(1).epsilon(0.03));
  LayerNorm norm(7);
  CHECK(spread(parameter(norm, "weight")).low == 1);
  CHECK(spread(parameter(norm, "bias")).high == 0);
}

TEST_CASE("one seed gives one layer, another seed another", "[init]") {
  const auto weight = [](uint64_t seed) {
    Generator init(seed);
    FeedForward layer(5, 7, Bias::learned, init);
    return parameter(layer, "down.weight");
  };
  test::check_identical(weight(3), weight(3));
  CHECK(weight(3).to_vector<float>() != weight(4).to_vector<float>());
}

TEST_CASE("Linear and FeedForward pass the gradient check, with and without bias", "[layers][gradient]") {
  Generator init(2);
  for (const Bias bias : {Bias::none, Bias::learned}) {
    CAPTURE(bias == Bias::learned);
    Linear linear(3, 4, bias, init);
    test::check_layer_gradients("Linear", linear, {normal({2, 3, 3})},
                                [&](const Tensors& in) -> Tensors { return {linear.forward(in[0])}; });
    FeedForward feed_forward(3, 5, bias, init);
    test::check_layer_gradients("FeedForward", feed_forward, {normal({2, 2, 3})},
                                [&](const Tensors& in) -> Tensors { return {feed_forward.forward(in[0])}; });
  }
}

TEST_CASE("the norms pass the gradient check", "[layers][gradient]") {
  RmsNorm rms(4);
  test::check_layer_gradients("RmsNorm", rms, {normal({2, 3, 4})},
                              [&](const Tensors& in) -> Tensors { return {rms.forward(in[0])}; });
  L2RmsNorm l2(4);
  test::check_layer_gradients("L2RmsNorm", l2, {normal({2, 3, 4})},
                              [&](const Tensors& in) -> Tensors { return {l2.forward(in[0])}; });
  for (const Bias bias : {Bias::none, Bias::learned}) {
    LayerNorm layer(4, bias);
    test::check_layer_gradients("LayerNorm", layer, {normal({2, 3, 4})},
                                [&](const Tensors& in) -> Tensors { return {layer.forward(in[0])}; });
  }
}

TEST_CASE("Embedding passes the gradient check with repeated tokens", "[layers][gradient]") {
  Generator init(4);
  Embedding embedding(5, 3, init);
  const Tensor tokens = Tensor::from(std::vector<int64_t>{0, 4, 4, 1, 4, 0}, {2, 3});
  test::check_layer_gradients("Embedding", embedding, {},
                              [&](const Tensors&) -> Tensors { return {embedding.forward(tokens)}; });
}

TEST_CASE("activations by their names are the functions of those names, with their gradients", "[layers][gradient]") {
  const auto erf_gelu = [](double x) { return x * (1 + std::erf(x / std::sqrt(2))) / 2; };
  const auto tanh_gelu = [](double x) {
    return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1)) * (x + 0.044715 * x * x * x)));
  };
  const auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
  const std::map<std::string, std::function<double(double)>> functions{
      {"gelu", erf_gelu},
      {"gelu_python", erf_gelu},
      {"gelu_10", [&](double x) { return std::clamp(erf_gelu(x), -10.0, 10.0); }},
      {"gelu_new", tanh_gelu},
      {"gelu_pytorch_tanh", tanh_gelu},
      {"gelu_fast", tanh_gelu},
      {"gelu_accurate", tanh_gelu},
      {"quick_gelu", [&](double x) { return x * logistic(1.702 * x); }},
      {"silu", [&](double x) { return x * logistic(x); }},
      {"swish", [&](double x) { return x * logistic(x); }},
      {"mish", [](double x) { return x * std::tanh(std::log1p(std::exp(x))); }},
      {"relu", [](double x) { return std::max(x, 0.0); }},
      {"relu2", [](double x) { return x > 0 ? x * x : 0; }},
      {"relu6", [](double x) { return std::clamp(x, 0.0, 6.0); }},
      {"leaky_relu", [](double x) { return x > 0 ? x : 0.01 * x; }},
      {"laplace", [](double x) { return (1 + std::erf((x - 0.707107) / (0.282095 * std::sqrt(2)))) / 2; }},
      {"tanh", [](double x) { return std::tanh(x); }},
      {"sigmoid", logistic},
      {"linear", [](double x) { return x; }}};
  const std::vector<double> points{-7, -1.5, -0.2, 0.3, 1, 5, 8, 12};
  const Tensor x = Tensor::from(points, {std::ssize(points)});
  for (const auto& [name, function] : functions) {
    CAPTURE(name);
    const ActivationFunction activation("test", "act", name);
    std::vector<double> expected;
    for (const double point : points) expected.push_back(function(point));
    test::check_close(activation(x), Tensor::from(expected, x.shape()), 1e-12, 1e-12);
    test::check_gradients(name, {name, {x}, [&](const Tensors& t) { return Tensors{activation(t[0])}; }});
  }
  CHECK_THROWS_WITH(ActivationFunction("test", "act", "gelo"), ContainsSubstring("test: act is 'gelo'; wanted one of"));
}

TEST_CASE("Dropout acts only when it is given a generator, and keeps the mean", "[layers]") {
  const Tensor x = Tensor::ones({100, 100});
  const Dropout dropout(0.25), none(0);
  test::check_identical(dropout.forward(x, nullptr), x);
  Generator generator(6);
  test::check_identical(none.forward(x, &generator), x);
  CHECK(generator.offset() == 0);
  const Spread dropped = spread(dropout.forward(x, &generator));
  CHECK(dropped.low == 0);
  CHECK(dropped.high == Approx(4.0 / 3));
  CHECK(dropped.mean == Approx(1).epsilon(0.03));
  CHECK(generator.offset() > 0);
  CHECK_THROWS_WITH(Dropout(1.0), ContainsSubstring("Dropout: probability is 1, wanted 0 <= p < 1"));
}

TEST_CASE("a coin falls on one side as often as it should, the same for the same generator", "[layers]") {
  Generator generator(1), again(1);
  int heads = 0;
  for (int i = 0; i < 1000; ++i) {
    const double value = coin(0.3, kCpu, generator).item();
    CHECK(coin(0.3, kCpu, again).item() == value);
    heads += value != 0;
  }
  CHECK(heads > 250);
  CHECK(heads < 350);
  CHECK(coin(0, kCpu, generator).item() == 0);
  CHECK(coin(1, kCpu, generator).item() == 1);
  CHECK_THROWS_WITH(coin(1.5, kCpu, generator), ContainsSubstring("coin: probability is 1.5"));
}

TEST_CASE("a captured coin falls anew at each replay, as an eager one would", "[cuda][layers][graph]") {
  if (!test::cuda_or_skip()) return;
  using test::kCuda;
  Generator eager(4), captured(4);
  Tensor base = Tensor::zeros({}, DType::i64, kCuda);
  captured.set_base(base);
  Tensor fallen;
  coin(0.5, kCuda, eager);
  eager.set_offset(0);
  const Graph graph(kCuda, [&] { fallen = coin(0.5, kCuda, captured); });
  int heads = 0;
  for (int i = 0; i < 64; ++i) {
    base.fill(4 * i);
    graph.replay();
    CHECK(fallen.item() == coin(0.5, kCuda, eager).item());
    heads += fallen.item() != 0;
  }
  CHECK(heads > 10);
  CHECK(heads < 54);
}

}  // namespace monoid

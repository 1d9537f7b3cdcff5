#include "monoid/ops/optim.h"

#include <unistd.h>

#include <cmath>
#include <limits>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

using test::check_close;
using test::check_identical;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// torch.optim.AdamW and Adam for one number, in double.
struct Reference {
  double parameter, mean = 0, mean_square = 0;
  int64_t step = 0;

  void update(double gradient, double rate, double decay, const AdamWOptions& options) {
    ++step;
    if (options.decoupled) parameter *= 1 - rate * decay;
    if (!options.decoupled) gradient += decay * parameter;
    mean = options.beta1 * mean + (1 - options.beta1) * gradient;
    mean_square = options.beta2 * mean_square + (1 - options.beta2) * gradient * gradient;
    const double count = static_cast<double>(step);
    const double unbiased = mean / (1 - std::pow(options.beta1, count));
    const double unbiased_square = mean_square / (1 - std::pow(options.beta2, count));
    parameter -= rate * unbiased / (std::sqrt(unbiased_square) + options.epsilon);
  }
};

Tensor leaf(const Shape& shape, uint64_t seed, DType dtype = DType::f32) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 1, dtype).set_requires_grad();
}

// Gradients of the same numbers for every dtype, a few of them zero.
void draw_gradient(Tensor& parameter, uint64_t seed) {
  Generator generator(seed);
  Tensor gradient = random_normal(parameter.shape(), generator, 0, 1, DType::f64);
  if (gradient.elements() > 2) gradient.data<double>()[2] = 0;
  parameter.set_grad(gradient.to(DType::f32).to(parameter.dtype()));
}

AdamW optimizer_of(const Tensors& parameters, const AdamWOptions& options = {}) {
  return AdamW({{.name = "all", .parameters = parameters}}, options);
}

double norm(const Tensor& x) {
  double square = 0;
  for (double value : x.to_vector<double>()) square += value * value;
  return std::sqrt(square);
}

}  // namespace

TEST_CASE("AdamW and Adam follow the scalar reference step by step", "[optim]") {
  for (bool decoupled : {true, false}) {
    for (double decay : {0.0, 0.1}) {
      for (int64_t count : {1, 3, 4097, 40'000}) {
        for (DType dtype : {DType::f32, DType::f64}) {
          CAPTURE(decoupled, decay, count, dtype);
          const AdamWOptions options{.beta2 = 0.99, .weight_decay = decay, .decoupled = decoupled};
          Tensor parameter = leaf({count}, 1, dtype);
          std::vector<Reference> expected;
          for (double value : parameter.to_vector<double>()) expected.push_back({value});
          AdamW optimizer = optimizer_of({parameter}, options);
          for (uint64_t step = 1; step <= 5; ++step) {
            draw_gradient(parameter, 100 + step);
            const std::vector<double> gradient = parameter.grad().to_vector<double>();
            const double rate = 0.01 * static_cast<double>(step);
            for (size_t i = 0; i < expected.size(); ++i) expected[i].update(gradient[i], rate, decay, options);
            optimizer.step(rate);
          }
          std::vector<double> values;
          for (const Reference& reference : expected) values.push_back(reference.parameter);
          const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-14;
          check_close(parameter.detach().to(DType::f64), Tensor::from(values, {count}), tolerance, tolerance);
        }
      }
    }
  }
}

TEST_CASE("the first AdamW step moves by the learning rate, whatever the size of the gradient", "[optim]") {
  Tensor parameter = Tensor::zeros({4}, DType::f64).set_requires_grad();
  parameter.set_grad(Tensor::from<double>({1e-3, -5, 1e6, 0}, {4}));
  AdamW optimizer = optimizer_of({parameter}, {.epsilon = 0});
  CHECK(std::isnan((optimizer.step(0.1), parameter.to_vector<double>()[3])));  // 0 / (0 + epsilon)
  check_close(parameter.as_strided({3}, {1}, 0), Tensor::from<double>({-0.1, 0.1, -0.1}, {3}), 1e-14);
}

TEST_CASE("a zero gradient moves nothing but the decay", "[optim]") {
  Tensor parameter = Tensor::full({5}, 2).set_requires_grad();
  parameter.set_grad(Tensor::zeros({5}));
  AdamW optimizer = optimizer_of({parameter}, {.weight_decay = 0.5});
  optimizer.step(0.1);
  check_identical(parameter.detach(), Tensor::full({5}, static_cast<float>(1 - 0.1 * 0.5) * 2));
}

TEST_CASE("a million steps in, bias correction is exact and nothing overflows", "[optim]") {
  Tensor parameter = Tensor::full({3}, 1, DType::f64).set_requires_grad();
  const std::vector<double> mean{0.1, -0.2, 0}, square{0.04, 0.01, 0};
  AdamW optimizer = optimizer_of({parameter});
  for (int64_t before : {999'999L, 4'000'000'000L}) {
    parameter.fill(1);
    optimizer.load_state({{"all.0.exp_avg", Tensor::from(mean, {3})},
                          {"all.0.exp_avg_sq", Tensor::from(square, {3})},
                          {"all.0.step", Tensor::from<int64_t>({before}, {})}});
    parameter.set_grad(Tensor::full({3}, 0.3, DType::f64));
    optimizer.step(0.01);
    for (size_t i = 0; i < 3; ++i) {
      Reference expected{1, mean[i], square[i], before};
      expected.update(0.3, 0.01, 0, {});
      CHECK(parameter.to_vector<double>()[i] == Approx(expected.parameter).epsilon(1e-14));
    }
    CHECK(optimizer.state().at("all.0.step").item() == static_cast<double>(before + 1));
  }
}

TEST_CASE("one norm can limit the gradients of all groups together", "[optim]") {
  const auto leaf = [](double gradient) {
    Tensor tensor = Tensor::zeros({3}, DType::f64).set_requires_grad();
    tensor.set_grad(Tensor::full({3}, gradient, DType::f64));
    return tensor;
  };
  Tensor a = leaf(2), b = leaf(-4);
  AdamW optimizer({{.name = "a", .parameters = {a}}, {.name = "b", .parameters = {b}, .clip_norm = 1e-3}}, {});
  const double norm = std::sqrt(3 * 4 + 3 * 16.0);
  CHECK(optimizer.clip(100.0) == Approx(norm).epsilon(1e-13));
  check_close(a.grad(), Tensor::full({3}, 2, DType::f64), 0);
  CHECK(optimizer.clip(0.5) == Approx(norm).epsilon(1e-13));
  check_close(a.grad(), Tensor::full({3}, 2 * 0.5 / (norm + 1e-6), DType::f64), 1e-13);
  check_close(b.grad(), Tensor::full({3}, -4 * 0.5 / (norm + 1e-6), DType::f64), 1e-13);
  CHECK_THROWS_WITH(optimizer.clip(0.0), ContainsSubstring("wanted a norm above 0"));
}

TEST_CASE("groups have their own rate, decay and clipping", "[optim]") {
  Tensor a = leaf({300}, 1, DType::f64), b = leaf({20, 5}, 2, DType::f64), c = leaf({7}, 3, DType::f64);
  const AdamWOptions options{.weight_decay = 0.2};
  AdamW optimizer({{.name = "a", .parameters = {a}, .learning_rate_scale = 0.5, .weight_decay = 0},
                   {.name = "b", .parameters = {b, c}, .clip_norm = 0.25}},
                  options);
  draw_gradient(a, 4);
  draw_gradient(b, 5);
  draw_gradient(c, 6);
  const Tensor before_a = a.grad().clone(), before_b = b.grad().clone();
  const double clipped = std::hypot(norm(b.grad()), norm(c.grad())), total = std::hypot(norm(a.grad()), clipped);
  CHECK(optimizer.clip() == Approx(total).epsilon(1e-13));
  check_identical(a.grad(), before_a);
  check_close(b.grad(), before_b * (0.25 / (clipped + 1e-6)), 1e-14);
  CHECK(std::hypot(norm(b.grad()), norm(c.grad())) == Approx(0.25).epsilon(1e-4));
  for (Tensor* parameter : {&b, &c}) parameter->set_grad(parameter->grad() * 0.5);
  const Tensor short_enough = b.grad().clone();
  optimizer.clip();
  check_identical(b.grad(), short_enough);

  Reference expected_a{a.to_vector<double>()[0]}, expected_b{b.to_vector<double>()[0]};
  expected_a.update(a.grad().to_vector<double>()[0], 0.05, 0, options);
  expected_b.update(b.grad().to_vector<double>()[0], 0.1, 0.2, options);
  optimizer.step(0.1);
  CHECK(a.to_vector<double>()[0] == Approx(expected_a.parameter).epsilon(1e-13));
  CHECK(b.to_vector<double>()[0] == Approx(expected_b.parameter).epsilon(1e-13));
}

TEST_CASE("the norm of f32 gradients is summed in double, the same for any thread count", "[optim]") {
  Tensor parameter = Tensor::zeros({100'003}).set_requires_grad();
  parameter.set_grad(Tensor::full({100'003}, 1e-25));
  AdamW optimizer = optimizer_of({parameter});
  CHECK(optimizer.clip() == Approx(static_cast<double>(1e-25f) * std::sqrt(100'003.0)).epsilon(1e-13));
  draw_gradient(parameter, 9);
  const int before = threads();
  const double expected = optimizer.clip();
  for (int count : {1, 2, 3}) {
    set_threads(count);
    CHECK(optimizer.clip() == expected);
  }
  set_threads(before);
  CHECK(expected == Approx(norm(parameter.grad())).epsilon(1e-13));
}

TEST_CASE("a gradient that is not finite shows in the norm and is not spread", "[optim]") {
  for (double bad : {kInfinity, -kInfinity, std::nan("")}) {
    Tensor parameter = Tensor::zeros({3}).set_requires_grad();
    const Tensor gradient = Tensor::from<float>({1, static_cast<float>(bad), 2}, {3});
    parameter.set_grad(gradient.clone());
    AdamW optimizer({{.name = "all", .parameters = {parameter}, .clip_norm = 1}}, {});
    CHECK_FALSE(std::isfinite(optimizer.clip()));
    check_identical(parameter.grad().to(DType::f64).as_strided({2}, {2}, 0), Tensor::from<double>({1, 2}, {2}));
  }
}

TEST_CASE("parameters without a gradient are skipped and keep their own step count", "[optim]") {
  Tensor a = leaf({3}, 1), b = leaf({3}, 2);
  const Tensor original = b.clone();
  AdamW optimizer = optimizer_of({a, b}, {.weight_decay = 0.1});
  for (int i = 0; i < 3; ++i) {
    draw_gradient(a, 3);
    optimizer.step();
  }
  check_identical(b.detach(), original);
  CHECK(optimizer.state().count("all.1.step") == 0);
  draw_gradient(b, 4);
  optimizer.step();
  CHECK(optimizer.state().at("all.0.step").item() == 4);
  CHECK(optimizer.state().at("all.1.step").item() == 1);
  optimizer.zero_grad();
  CHECK_FALSE(a.grad().defined());
  CHECK(optimizer.clip() == 0);
}

TEST_CASE("training resumed from a saved state continues bit for bit", "[optim]") {
  const std::string path = MONOID_BINARY_DIR "/optim_test." + std::to_string(getpid()) + ".safetensors";
  const auto train = [](Tensor& weight, AdamW& optimizer, int steps) {
    for (int i = 0; i < steps; ++i) {
      Tape tape;
      tape.backward(sum(square(sigmoid(weight) - 0.3)) * (1.0 / 33));
      optimizer.clip();
      optimizer.step(0.05);
      optimizer.zero_grad();
    }
  };
  const auto make = [](const Tensor& weight) {
    return AdamW({{.name = "all", .parameters = {weight}, .clip_norm = 0.01}}, {.weight_decay = 0.1});
  };
  Tensor through = leaf({33}, 1), first = leaf({33}, 1);
  AdamW whole = make(through), half = make(first);
  train(through, whole, 7);
  train(first, half, 4);
  half.save(path);
  Tensor second = first.clone().set_requires_grad();
  AdamW rest = make(second);
  rest.load(path);
  std::filesystem::remove(path);
  train(second, rest, 3);
  check_identical(second.detach(), through.detach());
  CHECK(rest.state().at("all.0.step").item() == 7);
}

TEST_CASE("AdamW's errors say what does not fit", "[optim]") {
  const Tensor x = leaf({3}, 1), y = leaf({2}, 2);
  CHECK_THROWS_WITH(optimizer_of({x, x}), ContainsSubstring("AdamW: parameter f32[3]") && ContainsSubstring("twice"));
  CHECK_THROWS_WITH(optimizer_of({Tensor()}), ContainsSubstring("undefined"));
  CHECK_THROWS_WITH(optimizer_of({Tensor::ones({2}, DType::bf16)}), ContainsSubstring("bf16[2]"));
  CHECK_THROWS_WITH(optimizer_of({leaf({4, 4}, 3).as_strided({4, 4}, {1, 4}, 0)}), ContainsSubstring("contiguous"));
  CHECK_THROWS_WITH(optimizer_of({x}, {.beta1 = 1}), ContainsSubstring("beta1 1"));
  CHECK_THROWS_WITH(AdamW({{.name = "g", .parameters = {x}}, {.name = "g", .parameters = {y}}}, {}),
                    ContainsSubstring("two groups are named 'g'"));
  AdamW optimizer = optimizer_of({x, y});
  const Tensor three = Tensor::zeros({3}), step = Tensor::from<int64_t>({1}, {});
  CHECK_THROWS_WITH(optimizer.load_state({{"all.0.exp_avg", three}}), ContainsSubstring("'all.0' is incomplete"));
  CHECK_THROWS_WITH(optimizer.load_state({{"all.7.exp_avg", three}}), ContainsSubstring("all.7.exp_avg"));
  CHECK_THROWS_WITH(
      optimizer.load_state({{"all.1.exp_avg", three}, {"all.1.exp_avg_sq", Tensor::zeros({2})}, {"all.1.step", step}}),
      ContainsSubstring("'all.1.exp_avg' is f32[3]") && ContainsSubstring("f32[2]"));
}

}  // namespace monoid

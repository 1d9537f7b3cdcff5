#include "monoid/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Result {
  Tensor loss, dlogits;
};

// The definition in plain double loops; dy weighs the rows of an unreduced loss.
Result reference(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options,
                 const std::vector<double>& dy) {
  const auto x = logits.to_vector<double>();
  const auto target = targets.to_vector<int64_t>();
  const auto classes = static_cast<size_t>(logits.size(-1));
  std::vector<double> losses(target.size()), gradient(x.size());
  double total = 0, counted = 0;
  for (const int64_t t : target) counted += t != options.ignore_index;
  const double share = options.reduction != Reduction::mean ? 1 : counted > 0 ? 1 / counted : 0;
  for (size_t row = 0; row < target.size(); ++row) {
    if (target[row] == options.ignore_index) continue;
    const double *in = x.data() + row * classes, greatest = *std::max_element(in, in + classes);
    double sum = 0;
    for (size_t i = 0; i < classes; ++i) sum += std::exp(in[i] - greatest);
    for (size_t i = 0; i < classes; ++i) {
      const double hard = i == static_cast<size_t>(target[row]) ? 1 - options.label_smoothing : 0;
      const double wanted = hard + options.label_smoothing / static_cast<double>(classes);
      const double log_p = in[i] - greatest - std::log(sum);
      losses[row] -= wanted * log_p;
      const double weight = options.reduction == Reduction::none ? dy[row] : dy[0] * share;
      gradient[row * classes + i] = (std::exp(log_p) - wanted) * weight;
    }
    total += losses[row] * share;
  }
  const Tensor loss =
      options.reduction == Reduction::none ? Tensor::from(losses, targets.shape()) : Tensor::scalar(total, DType::f64);
  return {loss, Tensor::from(gradient, logits.shape())};
}

Result run(const Tensor& logits_in, const Tensor& targets, const CrossEntropyOptions& options, const Tensor& dy) {
  const Tensor logits = logits_in.detach().set_requires_grad();
  Tape tape;
  const Tensor loss = cross_entropy(logits, targets, options);
  tape.backward(loss, dy);
  return {loss.detach(), logits.grad()};
}

Tensor normal(const Shape& shape, uint64_t seed, DType dtype, double deviation = 1) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, deviation, dtype);
}

Tensor classes_below(const Shape& shape, int64_t bound) {
  Generator generator(5);
  return random_integers(shape, generator, bound);
}

void check_against_reference(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options,
                             double tolerance) {
  const Tensor dy = normal(options.reduction == Reduction::none ? targets.shape() : Shape{}, 6, logits.dtype());
  const Result actual = run(logits, targets, options, dy);
  const Result expected = reference(logits, targets, options, dy.to_vector<double>());
  test::check_close(actual.loss, expected.loss.to(logits.dtype()), tolerance, tolerance);
  // With one class the gradient is 0, and a fused multiply-add may leave the rounding of its terms.
  if (logits.size(-1) == 1)
    test::check_close(actual.dlogits, expected.dlogits.to(logits.dtype()), 0, tolerance);
  else
    test::check_close_in_norm(actual.dlogits, expected.dlogits.to(logits.dtype()), tolerance);
}

}  // namespace

TEST_CASE("cross-entropy agrees with plain loops for every vocabulary size and option", "[cross_entropy]") {
  const int64_t classes = GENERATE(1, 2, 3, 64, 255, 4096, 4097, 50257);
  const Reduction reduction = GENERATE(Reduction::mean, Reduction::sum, Reduction::none);
  const double smoothing = GENERATE(0.0, 0.1);
  CAPTURE(classes, static_cast<int>(reduction), smoothing);
  const int64_t rows = classes > 1000 ? 3 : 40;
  const CrossEntropyOptions options{.ignore_index = 1, .reduction = reduction, .label_smoothing = smoothing};
  const Tensor targets = classes_below({rows}, classes);
  check_against_reference(normal({rows, classes}, 1, DType::f64, 3), targets, options, 1e-12);
  check_against_reference(normal({rows, classes}, 1, DType::f32, 3), targets, options, 1e-6);
}

TEST_CASE("cross-entropy keeps its digits under an offset of 1e4 and a spread of 1e4", "[cross_entropy]") {
  Tensor logits = normal({6, 300}, 1, DType::f32);
  const Tensor targets = classes_below({6}, 300);
  float* x = logits.data<float>();
  for (int64_t i = 0; i < logits.elements(); ++i) x[i] += i < 900 ? 1e4f : -1e4f;
  check_against_reference(logits, targets, {.reduction = Reduction::none}, 1e-6);
  check_against_reference(logits, targets, {.reduction = Reduction::none, .label_smoothing = 0.3}, 1e-6);
  for (int64_t i = 0; i < logits.elements(); ++i) x[i] = i % 3 == 0 ? 1e4f : -1e4f;
  check_against_reference(logits, targets, {.reduction = Reduction::none}, 1e-6);
  const Tensor equal = Tensor::full({2, 7}, 1e4);
  CHECK(cross_entropy(equal, classes_below({2}, 7)).item() == Approx(std::log(7)).epsilon(1e-7));
}

TEST_CASE("a maximum that a later piece of a long row raises rescales what came before", "[cross_entropy]") {
  Tensor logits = normal({2, 20000}, 1, DType::f32);
  for (int64_t i = 0; i < logits.elements(); ++i) logits.data<float>()[i] += 1e-3f * static_cast<float>(i % 20000);
  check_against_reference(logits, Tensor::from<int64_t>({17, 19000}, {2}), {}, 1e-6);
}

TEST_CASE("ignored rows have no loss and no gradient, and the mean does not count them", "[cross_entropy]") {
  const Tensor logits = normal({4, 3}, 1, DType::f64);
  const Tensor all = Tensor::full({4}, -100, DType::i64), some = Tensor::from<int64_t>({-100, 2, -100, 0}, {4});
  for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
    const Result none = run(logits, all, {.reduction = reduction}, Tensor::ones({}, DType::f64));
    CHECK(none.loss.item() == 0);
    test::check_identical(none.dlogits, Tensor::zeros({4, 3}, DType::f64));
  }
  const auto losses = cross_entropy(logits, some, {.reduction = Reduction::none}).to_vector<double>();
  CHECK(losses[0] == 0);
  CHECK(cross_entropy(logits, some).item() == Approx((losses[1] + losses[3]) / 2));
  CHECK(cross_entropy(Tensor::empty({0, 3}), Tensor::empty({0}, DType::i64)).item() == 0);
}

TEST_CASE("ignored rows stay silent even when their logits are NaN", "[cross_entropy]") {
  const Tensor logits =
      Tensor::from<double>({std::numeric_limits<double>::quiet_NaN(), 0, 0, 0}, {2, 2}).to(DType::f32);
  const Result result = run(logits, Tensor::from<int64_t>({-100, 1}, {2}), {}, Tensor::ones({}));
  CHECK(result.loss.item() == Approx(std::log(2)));
  test::check_identical(result.dlogits, Tensor::from<float>({0, 0, 0.5f, -0.5f}, {2, 2}));
}

TEST_CASE("a NaN logit of a row that counts reaches the loss and that row's gradient alone", "[cross_entropy]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double beside : {0.0, -kInfinity, kInfinity}) {
    CAPTURE(beside);
    const Tensor logits = Tensor::from<double>({nan, beside, 0, 0}, {2, 2}).to(DType::f32);
    const Result result = run(logits, Tensor::from<int64_t>({1, 1}, {2}), {}, Tensor::ones({}));
    CHECK(std::isnan(result.loss.item()));
    test::check_close(result.dlogits, Tensor::from<double>({nan, nan, 0.25, -0.25}, {2, 2}).to(DType::f32), 1e-7);
  }
}

TEST_CASE("infinite logits follow the limit", "[cross_entropy]") {
  const DType dtype = GENERATE(DType::f32, DType::f64);
  const Tensor logits = Tensor::from<double>({kInfinity, 3, -kInfinity,            // target takes everything
                                              kInfinity, 3, -kInfinity,            // target gets nothing
                                              0, 0, -kInfinity,                    // a masked class
                                              0, 0, -kInfinity,                    // a masked target
                                              -kInfinity, -kInfinity, -kInfinity,  // no probability at all
                                              kInfinity, kInfinity, 0},            // shared
                                             {6, 3})
                            .to(dtype);
  const Tensor targets = Tensor::from<int64_t>({0, 1, 0, 2, 1, 1}, {6});
  const Result result = run(logits, targets, {.reduction = Reduction::none}, Tensor::ones({6}, dtype));
  const double half = std::log(2.0);
  test::check_close(result.loss, Tensor::from<double>({0, kInfinity, half, kInfinity, kInfinity, half}, {6}).to(dtype),
                    1e-7);
  const Tensor gradient =
      Tensor::from<double>({0, 0, 0, 1, -1, 0, -0.5, 0.5, 0, 0.5, 0.5, -1, 0, 0, 0, 0.5, -0.5, 0}, {6, 3});
  test::check_close(result.dlogits, gradient.to(dtype), 1e-7);
}

TEST_CASE("cross-entropy gives the same bits on one thread and on four, and for strided logits", "[cross_entropy]") {
  const Tensor wide = normal({30, 50, 41}, 1, DType::f32), targets = classes_below({30, 50}, 29);
  const Tensor logits = wide.as_strided({30, 50, 29}, wide.strides(), 12);
  const int before = threads();
  set_threads(1);
  const Result one = run(logits, targets, {}, Tensor::ones({}));
  set_threads(4);
  const Result four = run(logits, targets, {}, Tensor::ones({})),
               dense = run(logits.clone(), targets, {}, Tensor::ones({}));
  set_threads(before);
  test::check_identical(one.loss, four.loss);
  test::check_identical(one.dlogits, four.dlogits);
  test::check_identical(one.loss, dense.loss);
  test::check_identical(one.dlogits, dense.dlogits);
}

TEST_CASE("the mean over many rows is summed in double", "[cross_entropy]") {
  // Equal logits: every loss is the same float, and so is their mean.
  const Tensor logits = Tensor::zeros({300001, 3}), targets = Tensor::zeros({300001}, DType::i64);
  CHECK(cross_entropy(logits, targets).item() ==
        cross_entropy(Tensor::zeros({1, 3}), Tensor::zeros({1}, DType::i64)).item());
}

TEST_CASE("cross-entropy takes i32 targets and strided targets", "[cross_entropy]") {
  const Tensor logits = normal({3, 5}, 1, DType::f32), targets = classes_below({3, 2}, 5);
  const Tensor column = targets.as_strided({3}, {2}, 1);
  test::check_identical(cross_entropy(logits, column), cross_entropy(logits, column.clone()));
  test::check_identical(cross_entropy(logits, column.to(DType::i32)), cross_entropy(logits, column));
}

TEST_CASE("cross-entropy names what does not fit", "[cross_entropy]") {
  const Tensor logits = Tensor::ones({2, 3, 4});
  Tensor targets = Tensor::zeros({2, 3}, DType::i64);
  targets.data<int64_t>()[5] = 4;
  CHECK_THROWS_WITH(cross_entropy(logits, targets), ContainsSubstring("target 4 at [1, 2]") &&
                                                        ContainsSubstring("4 classes") && ContainsSubstring("-100"));
  targets.data<int64_t>()[5] = -1;
  CHECK_THROWS_WITH(cross_entropy(logits, targets), ContainsSubstring("target -1 at [1, 2]"));
  CHECK_THROWS_WITH(cross_entropy(logits, Tensor::zeros({3, 2}, DType::i64)),
                    ContainsSubstring("i64[3, 2]") && ContainsSubstring("[2, 3]"));
  CHECK_THROWS_WITH(cross_entropy(logits, Tensor::zeros({2, 3})), ContainsSubstring("i32 or i64"));
  CHECK_THROWS_WITH(cross_entropy(Tensor::ones({2, 0}), Tensor::zeros({2}, DType::i64)), ContainsSubstring("classes"));
  CHECK_THROWS_WITH(cross_entropy(Tensor::ones({2, 3}), Tensor::zeros({2}, DType::i64), {.label_smoothing = 1.5}),
                    ContainsSubstring("1.5"));
  CHECK_THROWS_WITH(cross_entropy(Tensor::ones({2, 3}, DType::bf16), Tensor::zeros({2}, DType::i64)),
                    ContainsSubstring("cast()"));
}

}  // namespace monoid

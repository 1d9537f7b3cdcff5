#include "monoid/ops/reduce.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

using Column = std::vector<double>;

// f(the elements along an axis), for every place on the other axes: a plain loop in double.
Tensor along(const Tensor& x, int axis, const std::function<double(const Column&)>& f) {
  const Tensor last = contiguous(transpose(x, axis, -1));
  const std::vector<double> values = last.to_vector<double>();
  const auto extent = static_cast<size_t>(x.size(axis));
  std::vector<double> results;
  Shape shape = last.shape().with(-1, 1);
  for (int64_t n = 0; n < shape.elements(); ++n) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(n) * extent);
    results.push_back(f(Column(first, first + static_cast<std::ptrdiff_t>(extent))));
  }
  return squeeze(transpose(Tensor::from(results, shape), axis, -1), axis);
}

double plain_sum(const Column& x) {
  long double total = 0;
  for (double value : x) total += value;
  return static_cast<double>(total);
}
double plain_mean(const Column& x) { return plain_sum(x) / static_cast<double>(x.size()); }
double plain_variance(const Column& x) {
  const double mean = plain_mean(x);
  Column squares;
  for (double value : x) squares.push_back((value - mean) * (value - mean));
  return plain_mean(squares);
}
double plain_logsumexp(const Column& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (double value : x) total += std::exp(value - top);
  return top + std::log(total);
}

Tensor gradient_of(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) {
  Tensor leaf = x.clone().set_requires_grad();
  Tape tape;
  const Tensor y = f(leaf);
  tape.backward(y, Tensor::ones(y.shape(), y.dtype()));
  return leaf.grad();
}

Tensor row(const std::vector<double>& values) { return Tensor::from(values, {static_cast<int64_t>(values.size())}); }

}  // namespace

TEST_CASE("reductions along every axis agree with plain loops, at every size and layout", "[reduce]") {
  Generator generator(5);
  const auto shape = GENERATE(Shape{1}, Shape{31}, Shape{64}, Shape{127}, Shape{129}, Shape{2049}, Shape{5000},
                              Shape{3, 1}, Shape{1, 7}, Shape{65, 130}, Shape{300, 3}, Shape{3, 4099}, Shape{9, 1030},
                              Shape{2, 67, 5}, Shape{3, 5, 129}, Shape{4, 1, 3, 70});
  const DType dtype = GENERATE(DType::f32, DType::f64);
  const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-14;
  const Tensor dense = random_normal(shape, generator, 0.5, 1, dtype);
  Tensor reversed = dense;  // the same shape from a tensor whose axes lie the other way round
  for (int axis = 0; axis < shape.rank() / 2; ++axis) reversed = transpose(reversed, axis, -1 - axis);
  reversed = contiguous(reversed);
  for (int axis = 0; axis < shape.rank() / 2; ++axis) reversed = transpose(reversed, axis, -1 - axis);
  const Tensor sparse = slice(pad(unsqueeze(dense, -1), -1, 1, 1), -1, 1, 2);  // every third element of its memory
  for (const Tensor& x : {dense, reversed, squeeze(sparse, -1)}) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      CAPTURE(shape, x.strides(), axis, dtype);
      const Tensor total = along(x, axis, plain_sum);
      const double scale = std::sqrt(static_cast<double>(x.size(axis)));
      check_close(sum(x, axis).to(DType::f64), total, 0, tolerance * 4 * scale);
      check_close(sum(x, axis, true).to(DType::f64), unsqueeze(total, axis), 0, tolerance * 4 * scale);
      check_close(mean(x, axis).to(DType::f64), along(x, axis, plain_mean), 0, tolerance * 4);
      check_close(variance(x, axis).to(DType::f64), along(x, axis, plain_variance), tolerance * 4, tolerance);
      check_close(logsumexp(x, axis - shape.rank()).to(DType::f64), along(x, axis, plain_logsumexp), tolerance,
                  tolerance);
      check_identical(max(x, axis).to(DType::f64),
                      along(x, axis, [](const Column& c) { return *std::max_element(c.begin(), c.end()); }));
      check_identical(min(x, axis).to(DType::f64),
                      along(x, axis, [](const Column& c) { return *std::min_element(c.begin(), c.end()); }));
      check_identical(argmax(x, axis).to(DType::f64), along(x, axis, [](const Column& c) {
                        return static_cast<double>(std::max_element(c.begin(), c.end()) - c.begin());
                      }));
      check_identical(argmin(x, axis, true).to(DType::f64),
                      unsqueeze(along(x, axis,
                                      [](const Column& c) {
                                        return static_cast<double>(std::min_element(c.begin(), c.end()) - c.begin());
                                      }),
                                axis));
    }
    const Tensor all = reshape(x, {-1});
    check_close(sum(x).to(DType::f64), along(all, 0, plain_sum), 0,
                tolerance * 4 * std::sqrt(static_cast<double>(x.elements())));
    check_identical(max(x), max(all, 0));
    check_identical(min(x), min(all, 0));
    check_close(mean(x), mean(all, 0), 0, tolerance);
    check_close(variance(x), variance(all, 0), tolerance);
    check_close(logsumexp(x), logsumexp(all, 0), tolerance);
  }
}

TEST_CASE("long f32 sums keep their digits in both layouts", "[reduce]") {
  // Adding 0.1 to a running f32 total two million times is off by 8 percent.
  const int64_t count = 1 << 21;
  const Tensor x = Tensor::full({count}, 0.1);
  const double exact = static_cast<double>(0.1f) * static_cast<double>(count);
  CHECK(sum(x).item() == Approx(exact).epsilon(2e-7));
  const Tensor columns = sum(reshape(x, {count / 2, 2}), 0);
  CHECK(columns.to_vector<double>()[1] == Approx(exact / 2).epsilon(2e-7));
  CHECK(variance(Tensor::full({1 << 16}, 1e4)).item() == 0);
}

TEST_CASE("reductions have the same bits for any number of threads", "[reduce]") {
  Generator generator(6);
  const Tensor x = random_normal({5, 2100, 70}, generator);
  const auto results = [&] {
    Tensors all{sum(x), sum_to(x, {1, 2100, 1}), sum_to(x, {70}),
                gradient_of(x, [](const Tensor& t) { return max(t, 1); })};
    for (int axis = 0; axis < 3; ++axis) {
      all.insert(all.end(), {sum(x, axis), logsumexp(x, axis), argmax(x, axis), variance(x, axis)});
    }
    return all;
  };
  const int before = threads();
  set_threads(1);
  const Tensors one = results();
  for (int count : {2, 5}) {
    set_threads(count);
    const Tensors many = results();
    for (size_t i = 0; i < one.size(); ++i) {
      CAPTURE(count, i);
      check_identical(many[i], one[i]);
    }
  }
  set_threads(before);
}

TEST_CASE("a reduction over nothing is 0, NaN, -inf or an error, as the op defines", "[reduce]") {
  const Tensor none = Tensor::zeros({2, 0});
  check_identical(sum(none, 1), Tensor::zeros({2}));
  CHECK(sum(none).item() == 0);
  CHECK(std::isnan(mean(none).item()));
  check_close(mean(none, 1), Tensor::full({2}, kNan), 0);
  check_close(variance(none, 1), Tensor::full({2}, kNan), 0);
  check_close(variance(Tensor::ones({2, 1}), 1, false, 1), Tensor::full({2}, kNan), 0);
  check_identical(logsumexp(none, 1), Tensor::full({2}, -kInfinity));
  CHECK_THROWS_WITH(max(none, 1), ContainsSubstring("max: axis 1 of f32[2, 0] has no elements to choose from"));
  CHECK_THROWS_WITH(min(none), ContainsSubstring("min: axis 0 of f32[0] has no elements"));
  CHECK_THROWS_WITH(argmax(none, -1), ContainsSubstring("argmax: axis 1"));
  for (const Tensor& empty : {sum(none, 0), mean(none, 0), max(none, 0), logsumexp(none, 0), variance(none, 0)}) {
    CHECK(empty.shape() == Shape{0});
  }
  CHECK(argmin(none, 0, true).shape() == Shape{1, 0});
  CHECK(gradient_of(none, [](const Tensor& x) { return sum(x, 1); }).shape() == Shape{2, 0});
}

TEST_CASE("reductions of a number are the number", "[reduce]") {
  const Tensor x = Tensor::scalar(-2.5);
  for (const Tensor& y : {sum(x), mean(x), max(x), min(x), logsumexp(x), sum_to(x, {})}) check_identical(y, x);
  CHECK(variance(x).item() == 0);
  CHECK_THROWS_WITH(sum(x, 0), ContainsSubstring("sum: axis 0 is out of range for f32[]"));
}

TEST_CASE("max and min carry NaN, find infinities and prefer the first of equals", "[reduce]") {
  const Tensor ties = row({1, 3, 3, -2, -2});
  CHECK(argmax(ties, 0).item() == 1);
  CHECK(argmin(ties, 0).item() == 3);
  check_identical(gradient_of(ties, [](const Tensor& x) { return max(x, 0); }), row({0, 1, 0, 0, 0}));
  check_identical(gradient_of(ties, [](const Tensor& x) { return min(x, 0); }), row({0, 0, 0, 1, 0}));
  const auto places = GENERATE(as<std::pair<int, int>>{}, std::pair{0, 69}, std::pair{5, 6}, std::pair{68, 69});
  std::vector<double> values(70, kInfinity);
  values[static_cast<size_t>(places.first)] = values[static_cast<size_t>(places.second)] = kNan;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = row(values).to(dtype), columns = expand(unsqueeze(x, 1), {70, 3}).clone();
    CAPTURE(places.first, places.second, dtype);
    CHECK(std::isnan(max(x, 0).item()));
    CHECK(std::isnan(min(x, 0).item()));
    CHECK(argmax(x, 0).item() == places.first);
    check_identical(argmin(columns, 0), Tensor::full({3}, places.first, DType::i64));
  }
  CHECK(max(Tensor::full({70}, -kInfinity), 0).item() == -kInfinity);
  CHECK(argmin(Tensor::full({70}, kInfinity), 0).item() == 0);
  CHECK(argmax(expand(Tensor::scalar(1), {3}), 0).item() == 0);
}

TEST_CASE("logsumexp is exact at any magnitude and defined at infinity", "[reduce]") {
  CHECK(logsumexp(row({1000, 1000})).item() == Approx(1000 + std::log(2.0)));
  CHECK(logsumexp(row({-1e5, -1e5})).item() == Approx(-1e5 + std::log(2.0)));
  CHECK(logsumexp(row({-kInfinity, 2})).item() == 2);
  CHECK(logsumexp(row({kInfinity, 2})).item() == kInfinity);
  CHECK(std::isnan(logsumexp(row({kNan, 2})).item()));
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = Tensor::full({3, 4}, -kInfinity, dtype);
    for (int axis : {0, 1}) {
      const auto reduce = [axis](const Tensor& t) { return logsumexp(t, axis); };
      check_identical(reduce(x), Tensor::full({axis == 0 ? 4 : 3}, -kInfinity, dtype));
      check_identical(gradient_of(x, reduce), Tensor::zeros({3, 4}, dtype));
    }
  }
  check_close(gradient_of(row({-kInfinity, 2, 2}), [](const Tensor& x) { return logsumexp(x); }), row({0, 0.5, 0.5}),
              1e-14);
}

TEST_CASE("sum_to undoes every broadcast", "[reduce]") {
  Generator generator(7);
  const Tensor x = random_normal({3, 4, 2, 5}, generator, 0, 1, DType::f64);
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{1}, Shape{2, 1}, Shape{4, 1, 5}, Shape{3, 1, 2, 1},
                             Shape{1, 4, 2, 5}, Shape{1, 4, 1, 5}, Shape{3, 4, 2, 5}}) {
    Tensor expected = x;
    while (expected.rank() > shape.rank()) expected = along(expected, 0, plain_sum);
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) expected = unsqueeze(along(expected, axis, plain_sum), axis);
    }
    CAPTURE(shape);
    check_close(sum_to(x, shape), expected, 1e-13, 1e-13);
    check_close(sum_to(flip(transpose(flip(transpose(x, 0, 3), 0), 0, 3), 3), shape), expected, 1e-13, 1e-13);
  }
  CHECK_THROWS_WITH(sum_to(x, {4, 5}), ContainsSubstring("sum_to: [4, 5] does not broadcast to f64[3, 4, 2, 5]"));
  CHECK_THROWS_WITH(sum_to(x, {1, 3, 4, 2, 5}), ContainsSubstring("does not broadcast"));
  CHECK_THROWS_WITH(sum_to(Tensor::zeros({1}), {3}), ContainsSubstring("does not broadcast"));
}

TEST_CASE("a reduction names its op, its input and what it wants", "[reduce]") {
  CHECK_THROWS_WITH(mean(Tensor::zeros({2, 3}), 2), ContainsSubstring("mean: axis 2 is out of range for f32[2, 3]"));
  CHECK_THROWS_WITH(sum(Tensor::zeros({2}, DType::i64)), ContainsSubstring("sum: computes in f32 or f64, got i64"));
  CHECK_THROWS_WITH(logsumexp(Tensor::zeros({2}, DType::bf16)), ContainsSubstring("got bf16; cast() it first"));
  CHECK_THROWS_WITH(max(Tensor()), ContainsSubstring("max: x is undefined"));
}

}  // namespace monoid::test

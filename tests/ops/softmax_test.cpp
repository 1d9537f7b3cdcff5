#include "monoid/ops/softmax.h"

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
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Result {
  Tensor y, dx;
};

// The definitions in plain double loops over [outer, length, inner], the axis in the middle.
Result reference(bool logarithm, const Tensor& x_in, const Tensor& dy_in, int64_t outer, int64_t length,
                 int64_t inner) {
  const auto x = x_in.to_vector<double>(), dy = dy_in.to_vector<double>();
  std::vector<double> y(x.size()), dx(x.size());
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t n = 0; n < inner; ++n) {
      const auto at = [&](int64_t i) { return static_cast<size_t>((o * length + i) * inner + n); };
      double greatest = -kInfinity, sum = 0, contraction = 0;
      for (int64_t i = 0; i < length; ++i) greatest = std::max(greatest, x[at(i)]);
      for (int64_t i = 0; i < length; ++i) sum += std::exp(x[at(i)] - greatest);
      for (int64_t i = 0; i < length; ++i) {
        const double log_p = x[at(i)] - greatest - std::log(sum);
        y[at(i)] = logarithm ? log_p : std::exp(log_p);
        contraction += logarithm ? dy[at(i)] : dy[at(i)] * y[at(i)];
      }
      for (int64_t i = 0; i < length; ++i)
        dx[at(i)] = logarithm ? dy[at(i)] - std::exp(y[at(i)]) * contraction : y[at(i)] * (dy[at(i)] - contraction);
    }
  }
  return {Tensor::from(y, x_in.shape()), Tensor::from(dx, x_in.shape())};
}

Result run(bool logarithm, const Tensor& x_in, const Tensor& dy, int axis = -1) {
  const Tensor x = x_in.detach().set_requires_grad();
  Tape tape;
  const Tensor y = logarithm ? log_softmax(x, axis) : softmax(x, axis);
  tape.backward(y, dy);
  return {y.detach(), x.grad()};
}

Tensor normal(const Shape& shape, uint64_t seed, DType dtype, double deviation = 1) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, deviation, dtype);
}

void check_against_reference(bool logarithm, const Tensor& x, int axis, double tolerance) {
  const Tensor dy = normal(x.shape(), 99, x.dtype());
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < axis; ++i) outer *= x.size(i);
  for (int i = axis + 1; i < x.rank(); ++i) inner *= x.size(i);
  const Result actual = run(logarithm, x, dy, axis), expected = reference(logarithm, x, dy, outer, x.size(axis), inner);
  test::check_close(actual.y, expected.y.to(x.dtype()), tolerance, logarithm ? tolerance : 1e-37);
  test::check_close_in_norm(actual.dx, expected.dx.to(x.dtype()), tolerance);
}

}  // namespace

TEST_CASE("softmax and log_softmax agree with plain loops at every row length", "[softmax]") {
  const bool logarithm = GENERATE(false, true);
  const int64_t length = GENERATE(1, 2, 3, 16, 31, 64, 65, 200, 1000, 8191);
  CAPTURE(logarithm, length);
  const int64_t rows = length > 1000 ? 2 : 37;
  check_against_reference(logarithm, normal({rows, length}, 1, DType::f64, 3), 1, 1e-13);
  check_against_reference(logarithm, normal({rows, length}, 1, DType::f32, 3), 1, 2e-6);
}

TEST_CASE("softmax works along every axis", "[softmax]") {
  const bool logarithm = GENERATE(false, true);
  for (const int axis : {0, 1, 2}) check_against_reference(logarithm, normal({3, 7, 5}, 1, DType::f64), axis, 1e-13);
  const Tensor x = normal({3, 7, 5}, 1, DType::f32);
  test::check_identical(logarithm ? log_softmax(x, -2) : softmax(x, -2), logarithm ? log_softmax(x, 1) : softmax(x, 1));
}

TEST_CASE("softmax of logits of size 1e4 is exact to rounding", "[softmax]") {
  Tensor x = Tensor::from<float>({1e4f, 1e4f - 1, -1e4f, 9.998e3f, 1e4f}, {1, 5});
  check_against_reference(false, x, 1, 2e-6);
  check_against_reference(true, x, 1, 2e-6);
  const Tensor equal = Tensor::full({2, 4}, -1e4);
  test::check_identical(softmax(equal), Tensor::full({2, 4}, 0.25));
}

TEST_CASE("rows of infinities follow the limit and never give a NaN", "[softmax]") {
  const DType dtype = GENERATE(DType::f32, DType::f64);
  const Tensor x = Tensor::from<double>({-kInfinity, -kInfinity, -kInfinity,  //
                                         0, -kInfinity, 0,                    //
                                         kInfinity, 1, -kInfinity,            //
                                         kInfinity, 5, kInfinity},
                                        {4, 3})
                       .to(dtype);
  const Tensor p = Tensor::from<double>({0, 0, 0, 0.5, 0, 0.5, 1, 0, 0, 0.5, 0, 0.5}, {4, 3}).to(dtype);
  const double half = -std::log(2.0);
  const Tensor log_p = Tensor::from<double>({-kInfinity, -kInfinity, -kInfinity,  //
                                             half, -kInfinity, half,              //
                                             0, -kInfinity, -kInfinity,           //
                                             half, -kInfinity, half},
                                            {4, 3})
                           .to(dtype);
  const Tensor dy = normal({4, 3}, 3, dtype);
  const Result plain = run(false, x, dy), logarithm = run(true, x, dy);
  test::check_close(plain.y, p, 1e-7);
  test::check_close(logarithm.y, log_p, 1e-7);
  const auto dx = plain.dx.to_vector<double>(), dlog = logarithm.dx.to_vector<double>(), g = dy.to_vector<double>();
  for (size_t i = 0; i < 3; ++i) {
    CHECK(dx[i] == 0);
    CHECK(dlog[i] == 0);
    CHECK(dx[6 + i] == 0);
  }
  CHECK(dx[3] == Approx(0.25 * (g[3] - g[5])));
  CHECK(dx[4] == 0);
  CHECK(dlog[4] == Approx(g[4]));
  CHECK(dlog[9] == Approx(g[9] - 0.5 * (g[9] + g[10] + g[11])));
}

TEST_CASE("a NaN makes its row NaN, whatever stands beside it, and no other row", "[softmax]") {
  for (const double beside : {0.0, -kInfinity, kInfinity}) {
    CAPTURE(beside);
    const Tensor x = Tensor::from<double>({kNan, beside, 1, 1, beside, kNan}, {3, 2}).to(DType::f32);
    for (const Tensor& y : {softmax(x), log_softmax(x)}) {
      const auto values = y.to_vector<double>();
      for (const size_t i : {0, 1, 4, 5}) CHECK(std::isnan(values[i]));
      for (const size_t i : {2, 3}) CHECK_FALSE(std::isnan(values[i]));
    }
  }
}

TEST_CASE("softmax gives the same bits on one thread and on four, and for strided rows", "[softmax]") {
  const bool logarithm = GENERATE(false, true);
  const Tensor wide = normal({60, 50, 41}, 1, DType::f32), dy = normal({60, 50, 29}, 2, DType::f32);
  const Tensor x = wide.as_strided({60, 50, 29}, wide.strides(), 12);
  const int before = threads();
  set_threads(1);
  const Result one = run(logarithm, x, dy);
  set_threads(4);
  const Result four = run(logarithm, x, dy), dense = run(logarithm, x.clone(), dy);
  set_threads(before);
  test::check_identical(one.y, four.y);
  test::check_identical(one.dx, four.dx);
  test::check_identical(one.y, dense.y);
  test::check_identical(one.dx, dense.dx);
}

TEST_CASE("softmax of nothing is nothing", "[softmax]") {
  CHECK(softmax(Tensor::empty({0, 5})).shape() == Shape{0, 5});
  CHECK(log_softmax(Tensor::empty({5, 0})).shape() == Shape{5, 0});
}

TEST_CASE("softmax names what does not fit", "[softmax]") {
  CHECK_THROWS_WITH(softmax(Tensor::ones({2, 3}), 2), ContainsSubstring("2"));
  CHECK_THROWS_WITH(softmax(Tensor::scalar(1)), ContainsSubstring("softmax: wants"));
  CHECK_THROWS_WITH(log_softmax(Tensor::ones({2}, DType::i64)), ContainsSubstring("log_softmax: wants"));
  CHECK_THROWS_WITH(log_softmax(Tensor::ones({2}, DType::bf16)), ContainsSubstring("cast()"));
  CHECK_THROWS_WITH(softmax({}), ContainsSubstring("softmax"));
}

}  // namespace monoid

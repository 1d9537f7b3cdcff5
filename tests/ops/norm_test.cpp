#include "monoid/ops/norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/ops/elementwise.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

enum class Kind { rms, l2, layer };
constexpr double kEps = 1e-5;

struct Result {
  Tensor y, dx, dweight, dbias;
};

// The definitions in plain double loops: x [rows, length], weight and bias [length].
Result reference(Kind kind, const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in, const Tensor& dy_in) {
  const auto x = x_in.to_vector<double>(), w = weight_in.to_vector<double>(), b = bias_in.to_vector<double>();
  const auto dy = dy_in.to_vector<double>();
  const size_t length = w.size(), rows = x.size() / length;
  std::vector<double> y(x.size()), dx(x.size()), dweight(length), dbias(length);
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = row * length;
    double mean = 0, square = 0, mean_g = 0, mean_gn = 0;
    for (size_t i = 0; i < length && kind == Kind::layer; ++i) mean += x[first + i] / static_cast<double>(length);
    for (size_t i = 0; i < length; ++i) square += std::pow(x[first + i] - mean, 2);
    const bool clamped = kind == Kind::l2 && std::sqrt(square) < 1e-12;
    const double divisor = kind == Kind::l2
                               ? std::max(std::sqrt(square), 1e-12) / std::sqrt(static_cast<double>(length))
                               : std::sqrt(square / static_cast<double>(length) + kEps);
    for (size_t i = 0; i < length; ++i) {
      const double n = (x[first + i] - mean) / divisor, g = dy[first + i] * w[i];
      y[first + i] = n * w[i] + (kind == Kind::layer ? b[i] : 0);
      dweight[i] += dy[first + i] * n;
      dbias[i] += dy[first + i];
      mean_g += kind == Kind::layer ? g / static_cast<double>(length) : 0;
      mean_gn += clamped ? 0 : g * n / static_cast<double>(length);
    }
    for (size_t i = 0; i < length; ++i) {
      const double n = (x[first + i] - mean) / divisor, g = dy[first + i] * w[i];
      dx[first + i] = (g - mean_g - n * mean_gn) / divisor;
    }
  }
  const Shape row_shape = weight_in.shape();
  return {Tensor::from(y, x_in.shape()), Tensor::from(dx, x_in.shape()), Tensor::from(dweight, row_shape),
          Tensor::from(dbias, row_shape)};
}

Tensor leaf(const Tensor& value) { return value.detach().set_requires_grad(); }

Result run(Kind kind, const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in, const Tensor& dy) {
  const Tensor x = leaf(x_in), weight = leaf(weight_in), bias = leaf(bias_in);
  Tape tape;
  const Tensor y = kind == Kind::rms  ? rms_norm(x, weight, kEps)
                   : kind == Kind::l2 ? l2_rms_norm(x, weight)
                                      : layer_norm(x, weight, bias, kEps);
  tape.backward(y, dy);
  return {y.detach(), x.grad(), weight.grad(), bias.grad()};
}

Tensor normal(const Shape& shape, uint64_t seed, DType dtype) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 1, dtype);
}

struct Case {
  Tensor x, weight, bias, dy;
};

Case random_case(int64_t rows, int64_t length, DType dtype) {
  return {normal({rows, length}, 1, dtype), normal({length}, 2, dtype), normal({length}, 3, dtype),
          normal({rows, length}, 4, dtype)};
}

Tensor like(const Tensor& tensor, DType dtype) { return tensor.to(dtype); }

void check_result(const Result& actual, const Result& expected, DType dtype, double tolerance) {
  test::check_close_in_norm(actual.y, like(expected.y, dtype), tolerance);
  test::check_close_in_norm(actual.dx, like(expected.dx, dtype), tolerance);
  test::check_close_in_norm(actual.dweight, like(expected.dweight, dtype), tolerance);
  if (actual.dbias.defined()) test::check_close_in_norm(actual.dbias, like(expected.dbias, dtype), tolerance);
}

void check_against_reference(Kind kind, const Case& c, double tolerance) {
  check_result(run(kind, c.x, c.weight, c.bias, c.dy), reference(kind, c.x, c.weight, c.bias, c.dy), c.x.dtype(),
               tolerance);
}

void check_identical(const Result& a, const Result& b) {
  test::check_identical(a.y, b.y);
  test::check_identical(a.dx, b.dx);
  test::check_identical(a.dweight, b.dweight);
  if (a.dbias.defined()) test::check_identical(a.dbias, b.dbias);
}

}  // namespace

TEST_CASE("norms and their gradients agree with plain loops at every row length", "[norm]") {
  const Kind kind = GENERATE(Kind::rms, Kind::l2, Kind::layer);
  const int64_t length = GENERATE(1, 2, 3, 16, 31, 64, 65, 200, 1000, 8191);
  // One centred channel is rounding noise divided by sqrt(eps): no digits to compare in the norm of the result.
  if (kind == Kind::layer && length == 1) return;
  CAPTURE(static_cast<int>(kind), length);
  const int64_t rows = length > 1000 ? 3 : 131;
  // A row of length 1 has gradient 0 up to cancellation, of the size of dy / |x|.
  if (!(kind == Kind::l2 && length == 1)) {
    check_against_reference(kind, random_case(rows, length, DType::f64), 1e-12);
    check_against_reference(kind, random_case(rows, length, DType::f32), length < 4 ? 1e-5 : 2e-6);
  }
}

TEST_CASE("a row of one channel normalises to its sign, or to the bias", "[norm]") {
  const Tensor x = Tensor::from<double>({-3, 0.5, 2}, {3, 1}), weight = Tensor::full({1}, 2, DType::f64);
  const Tensor bias = Tensor::full({1}, 7, DType::f64);
  test::check_close(l2_rms_norm(x, weight), Tensor::from<double>({-2, 2, 2}, {3, 1}), 1e-15);
  test::check_identical(layer_norm(x, weight, bias), Tensor::full({3, 1}, 7, DType::f64));
}

TEST_CASE("a zero row gives zeros and a finite gradient", "[norm]") {
  Case c = random_case(2, 10, DType::f32);
  std::fill_n(c.x.data<float>(), 10, 0.f);
  for (const Kind kind : {Kind::rms, Kind::l2, Kind::layer}) {
    CAPTURE(static_cast<int>(kind));
    const Result result = run(kind, c.x, c.weight, c.bias, c.dy);
    for (int64_t i = 0; i < 10; ++i)
      CHECK(result.y.data<float>()[i] == (kind == Kind::layer ? c.bias.data<float>()[i] : 0));
    check_result(result, reference(kind, c.x, c.weight, c.bias, c.dy), DType::f32, 2e-6);
  }
}

TEST_CASE("below its clamp the l2 norm divides by a constant, in the gradient too", "[norm]") {
  Case c = random_case(3, 7, DType::f64);
  for (int64_t i = 0; i < 7; ++i) c.x.data<double>()[i] *= 1e-14;
  check_against_reference(Kind::l2, c, 1e-12);
}

TEST_CASE("a constant row normalises to the bias exactly", "[norm]") {
  const Case c = random_case(1, 1000, DType::f32);
  for (const double value : {0.1, -3e4, 1e20})
    test::check_identical(layer_norm(Tensor::full({1, 1000}, value), c.weight, c.bias), c.bias.view({1, 1000}));
}

TEST_CASE("layer norm sees noise of 1e-3 through an offset of 1e4", "[norm]") {
  Case c = random_case(5, 512, DType::f32);
  for (int64_t i = 0; i < c.x.elements(); ++i) c.x.data<float>()[i] = 1e4f + 1e-3f * c.x.data<float>()[i];
  check_against_reference(Kind::layer, c, 2e-6);
}

TEST_CASE("rows of any magnitude normalise in f32", "[norm]") {
  const Case c = random_case(4, 100, DType::f32);
  Tensor huge = c.x.clone(), tiny = c.x.clone();
  for (int64_t i = 0; i < c.x.elements(); ++i) {
    huge.data<float>()[i] *= 1e20f;
    tiny.data<float>()[i] *= 1e-9f;
  }
  const Tensor unit = l2_rms_norm(c.x, c.weight);
  test::check_close(l2_rms_norm(huge, c.weight), unit, 2e-6);
  test::check_close(l2_rms_norm(tiny, c.weight), unit, 2e-6);
  test::check_close(rms_norm(huge, c.weight), unit, 2e-6);
  test::check_close(layer_norm(huge, c.weight, c.bias, 0), layer_norm(c.x, c.weight, c.bias, 0), 1e-5, 1e-6);
}

TEST_CASE("a negative eps of rms norm is the machine epsilon of the dtype", "[norm]") {
  const Tensor x = Tensor::full({1, 2}, 1e-4);
  CHECK(rms_norm(x).data<float>()[0] == Approx(1e-4 / std::sqrt(1e-8 + 0x1p-23)).epsilon(1e-6));
  CHECK(rms_norm(x.to(DType::f64)).data<double>()[0] == Approx(1e-4 / std::sqrt(1e-8 + 0x1p-52)).epsilon(1e-9));
}

TEST_CASE("norms of no rows: empty outputs, zero parameter gradients", "[norm]") {
  const Case c = random_case(0, 6, DType::f32);
  for (const Kind kind : {Kind::rms, Kind::l2, Kind::layer}) {
    const Result result = run(kind, c.x, c.weight, c.bias, c.dy);
    CHECK(result.y.shape() == Shape{0, 6});
    test::check_identical(result.dweight, Tensor::zeros({6}));
    if (kind == Kind::layer) test::check_identical(result.dbias, Tensor::zeros({6}));
  }
}

TEST_CASE("norms give the same bits on one thread and on four", "[norm]") {
  const Kind kind = GENERATE(Kind::rms, Kind::l2, Kind::layer);
  const Case c = random_case(3000, 37, DType::f32);
  const int before = threads();
  set_threads(1);
  const Result one = run(kind, c.x, c.weight, c.bias, c.dy);
  set_threads(4);
  const Result four = run(kind, c.x, c.weight, c.bias, c.dy);
  set_threads(before);
  check_identical(one, four);
}

TEST_CASE("parameter gradients keep their digits over many rows", "[norm]") {
  for (const Kind kind : {Kind::rms, Kind::layer}) {
    Case c = random_case(100000, 3, DType::f32);
    for (int64_t i = 0; i < c.dy.elements(); ++i) c.dy.data<float>()[i] = std::abs(c.dy.data<float>()[i]);
    const Result result = run(kind, c.x, c.weight, c.bias, c.dy);
    const Result expected = reference(kind, c.x, c.weight, c.bias, c.dy);
    test::check_close_in_norm(result.dweight, expected.dweight.to(DType::f32), 1e-6);
    if (kind == Kind::layer) test::check_close_in_norm(result.dbias, expected.dbias.to(DType::f32), 1e-6);
  }
}

TEST_CASE("norms take packed rows, transposed inputs and expanded gradients as they are", "[norm]") {
  const Kind kind = GENERATE(Kind::rms, Kind::l2, Kind::layer);
  const Tensor weight = normal({4}, 2, DType::f32), bias = normal({4}, 3, DType::f32);
  const Tensor wide = normal({2, 5, 9}, 1, DType::f32);
  const Tensor packed = wide.as_strided({2, 3, 4}, {45, 9, 1}, 14);  // channels 5..9 of steps 1..4
  const Tensor turned = wide.as_strided({2, 5, 4}, {45, 1, 9}, 0);
  for (const Tensor& x : {packed, turned}) {
    const Tensor dy = Tensor::ones({1}).as_strided(x.shape(), {0, 0, 0}, 0);
    check_identical(run(kind, x, weight, bias, dy), run(kind, x.clone(), weight, bias, dy.clone()));
    check_identical(run(kind, x, weight, bias, turned.as_strided(x.shape(), turned.strides(), 0)),
                    run(kind, x.clone(), weight, bias, turned.as_strided(x.shape(), turned.strides(), 0).clone()));
  }
}

TEST_CASE("norms compute the gradients that are asked for and no others", "[norm]") {
  const Case c = random_case(3, 5, DType::f64);
  const Result expected = reference(Kind::layer, c.x, c.weight, c.bias, c.dy);
  const Tensors gradients{expected.dx, expected.dweight, expected.dbias};
  for (const int wanted : {0, 1, 2}) {
    Tensors inputs{c.x.detach(), c.weight.detach(), c.bias.detach()};
    inputs[static_cast<size_t>(wanted)].set_requires_grad();
    Tape tape;
    tape.backward(layer_norm(inputs[0], inputs[1], inputs[2], kEps), c.dy);
    for (int i = 0; i < 3; ++i) CHECK(inputs[static_cast<size_t>(i)].grad().defined() == (i == wanted));
    test::check_close_in_norm(inputs[static_cast<size_t>(wanted)].grad(), gradients[static_cast<size_t>(wanted)],
                              1e-12);
  }
}

TEST_CASE("a norm on a residual stream is the sum, then the norm, with the gradients of both ways", "[norm]") {
  const Case c = random_case(70, 37, DType::f32);
  const Tensor more = normal({70, 37}, 5, DType::f32), dsum = normal({70, 37}, 6, DType::f32);
  for (const bool added : {true, false}) {
    for (const bool centred : {true, false}) {
      CAPTURE(added, centred);
      Tensors fused{leaf(c.x), added ? leaf(more) : Tensor(), leaf(c.weight), centred ? leaf(c.bias) : Tensor()};
      Tensors apart{leaf(c.x), added ? leaf(more) : Tensor(), leaf(c.weight), centred ? leaf(c.bias) : Tensor()};
      Tape fused_tape;
      const NormAndSum result = centred ? add_layer_norm(fused[0], fused[1], fused[2], fused[3], kEps)
                                        : add_rms_norm(fused[0], fused[1], fused[2], kEps);
      fused_tape.backward({result.normed, result.sum}, {c.dy, dsum});
      Tape tape;
      const Tensor sum = added ? apart[0] + apart[1] : apart[0];
      const Tensor normed = centred ? layer_norm(sum, apart[2], apart[3], kEps) : rms_norm(sum, apart[2], kEps);
      tape.backward({normed, sum}, {c.dy, dsum});
      test::check_identical(result.normed.detach(), normed.detach());
      test::check_identical(result.sum.detach(), sum.detach());
      for (size_t i = 0; i < 4; ++i) {
        if (fused[i].defined()) test::check_close_in_norm(fused[i].grad(), apart[i].grad(), 1e-6);
      }
    }
  }
}

TEST_CASE("a stream without a residual goes on in the same memory", "[norm]") {
  const Case c = random_case(2, 5, DType::f32);
  CHECK(add_rms_norm(c.x, {}, c.weight).sum.raw() == c.x.raw());
  CHECK(add_layer_norm(c.x, {}, c.weight).sum.raw() == c.x.raw());
}

TEST_CASE("norms name what does not fit", "[norm]") {
  const Tensor x = Tensor::ones({2, 4});
  CHECK_THROWS_WITH(rms_norm(x, Tensor::ones({3})), ContainsSubstring("rms_norm: weight f32[3]") &&
                                                        ContainsSubstring("f32[2, 4]") && ContainsSubstring("[4]"));
  CHECK_THROWS_WITH(l2_rms_norm(x, Tensor::ones({4, 1})), ContainsSubstring("l2_rms_norm: weight"));
  CHECK_THROWS_WITH(layer_norm(x, {}, Tensor::ones({5})), ContainsSubstring("layer_norm: bias f32[5]"));
  CHECK_THROWS_WITH(layer_norm(x, Tensor::ones({4}, DType::f64)), ContainsSubstring("layer_norm"));
  CHECK_THROWS_WITH(rms_norm(Tensor::scalar(1)), ContainsSubstring("rms_norm: wants floating-point rows"));
  CHECK_THROWS_WITH(rms_norm(Tensor::ones({2, 4}, DType::bf16)), ContainsSubstring("cast()"));
  CHECK_THROWS_WITH(rms_norm({}), ContainsSubstring("rms_norm"));
  CHECK_THROWS_WITH(add_rms_norm(x, Tensor::ones({4})),
                    ContainsSubstring("add_rms_norm: residual") && ContainsSubstring("[2, 4]"));
  CHECK_THROWS_WITH(add_layer_norm(x, Tensor::ones({2, 4}, DType::f64)), ContainsSubstring("add_layer_norm"));
}

}  // namespace monoid

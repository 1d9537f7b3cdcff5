#include "monoid/ops/matrix_scan.h"

#include <cmath>
#include <limits>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

using namespace monoid;
using namespace monoid::test;

namespace {

constexpr MatrixScanAlgorithm kAlgorithms[] = {MatrixScanAlgorithm::chunked, MatrixScanAlgorithm::sequential,
                                               MatrixScanAlgorithm::brent_kung, MatrixScanAlgorithm::hillis_steele};

// [batch, time, head, order, order] in f64, index by index.
struct Matrices {
  Shape shape;
  std::vector<double> values;

  explicit Matrices(const Shape& extents) : shape(extents), values(static_cast<size_t>(extents.elements())) {}
  explicit Matrices(const Tensor& x) : shape(x.shape()), values(x.to_vector<double>()) {}

  double& at(int64_t batch, int64_t time, int64_t head, int64_t row, int64_t column) {
    const int64_t order = shape[4];
    return values[static_cast<size_t>((((batch * shape[1] + time) * shape[2] + head) * order + row) * order + column)];
  }
  Tensor tensor(DType dtype = DType::f32) const { return Tensor::from(values, shape).to(dtype); }
};

// The recurrence as it is written on paper.
Tensor oracle(const Tensor& matrices, const Tensor& initial) {
  Matrices x(matrices), states(matrices.shape());
  const Shape& shape = x.shape;
  const int64_t order = shape[4];
  Matrices entering(Shape{shape[0], 1, shape[2], order, order});
  if (initial.defined()) entering.values = initial.to_vector<double>();
  for (int64_t b = 0; b < shape[0]; ++b) {
    for (int64_t h = 0; h < shape[2]; ++h) {
      for (int64_t t = 0; t < shape[1]; ++t) {
        for (int64_t i = 0; i < order; ++i) {
          for (int64_t j = 0; j < order; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < order; ++k) {
              const double before = t > 0               ? states.at(b, t - 1, h, i, k)
                                    : initial.defined() ? entering.at(b, 0, h, i, k)
                                                        : static_cast<double>(i == k);
              sum += before * x.at(b, t, h, k, j);
            }
            states.at(b, t, h, i, j) = sum;
          }
        }
      }
    }
  }
  return states.tensor(DType::f64);
}

// Near the identity, so that products over time stay in range.
Tensor gentle(const Shape& shape, Generator& generator, double spread = 0.1, DType dtype = DType::f32) {
  Matrices x(random_normal(shape, generator, 0, spread, DType::f64));
  for (int64_t i = 0; i < shape.elements() / (shape[4] * shape[4]); ++i)
    for (int64_t r = 0; r < shape[4]; ++r) x.values[static_cast<size_t>((i * shape[4] + r) * shape[4] + r)] += 0.9;
  return x.tensor(dtype);
}

// Rotations of random pairs of axes: orthogonal to the last bit that f64 has.
Matrices rotations(const Shape& shape, Generator& generator) {
  Matrices x(shape);
  const int64_t order = shape[4];
  for (int64_t t = 0; t < shape[1]; ++t) {
    for (int64_t i = 0; i < order; ++i) x.at(0, t, 0, i, i) = 1;
    const auto first = generator.below(static_cast<uint64_t>(order)), apart = 1 + generator.below(order - 1);
    const auto i = static_cast<int64_t>(first), j = static_cast<int64_t>((first + apart) % order);
    const double angle = 6.28 * generator.uniform();
    x.at(0, t, 0, i, i) = x.at(0, t, 0, j, j) = std::cos(angle);
    x.at(0, t, 0, i, j) = std::sin(angle);
    x.at(0, t, 0, j, i) = -std::sin(angle);
  }
  return x;
}

Tensor stretch(const Tensor& x, int64_t begin, int64_t end) { return slice(x, 1, begin, end); }

Tensors gradients(const std::function<ScanResult(const Tensor&, const Tensor&)>& scan, Tensor x, Tensor initial,
                  const Tensors& cotangents) {
  x.set_requires_grad();
  if (initial.defined()) initial.set_requires_grad();
  Tape tape;
  const ScanResult result = scan(x, initial);
  tape.backward({result.states, result.final}, cotangents);
  return {x.grad(), initial.defined() ? initial.grad() : Tensor()};
}

}  // namespace

TEST_CASE("matrix_scan follows its recurrence for every order, length, state and algorithm", "[matrix_scan]") {
  Generator generator(1);
  for (const Shape& shape :
       {Shape{2, 1, 2, 4, 4}, Shape{1, 2, 1, 2, 2}, Shape{2, 65, 3, 8, 8}, Shape{1, 127, 2, 16, 16},
        Shape{1, 33, 1, 32, 32}, Shape{3, 63, 1, 3, 3}, Shape{1, 21, 2, 7, 7}, Shape{1, 19, 1, 1, 1},
        Shape{1, 12, 1, 33, 33}, Shape{1, 1000, 1, 8, 8}, Shape{1, 700, 1, 5, 5}}) {
    for (const bool with_state : {false, true}) {
      const Tensor x = gentle(shape, generator, 0.3 / std::sqrt(static_cast<double>(shape[4])));
      const Tensor initial = with_state ? random_normal({shape[0], shape[2], shape[4], shape[4]}, generator) : Tensor();
      const Tensor expected = oracle(x, initial);
      for (const MatrixScanAlgorithm algorithm : kAlgorithms) {
        CAPTURE(shape, with_state, static_cast<int>(algorithm));
        const ScanResult result = matrix_scan(x, initial, algorithm);
        check_close_in_norm(result.states.to(DType::f64), expected, 5e-6);
        check_identical(result.final, select(result.states, 1, -1).clone());
      }
    }
  }
}

TEST_CASE("Gradients of all algorithms agree, f32 with f64", "[matrix_scan]") {
  Generator generator(2);
  for (const Shape& shape : {Shape{2, 37, 2, 8, 8}, Shape{1, 600, 1, 16, 16}, Shape{1, 70, 2, 3, 3}}) {
    for (const bool with_state : {false, true}) {
      const Shape state{shape[0], shape[2], shape[4], shape[4]};
      const Tensor x = gentle(shape, generator, 0.3 / std::sqrt(static_cast<double>(shape[4])));
      const Tensor initial = with_state ? random_normal(state, generator) : Tensor();
      const Tensors cotangents{random_normal(shape, generator), random_normal(state, generator)};
      const auto wide = [](const Tensor& y) { return y.defined() ? y.to(DType::f64) : y; };
      const auto by = [](MatrixScanAlgorithm algorithm) {
        return [=](const Tensor& y, const Tensor& h) { return matrix_scan(y, h, algorithm); };
      };
      const Tensors exact = gradients(by(MatrixScanAlgorithm::sequential), wide(x), wide(initial),
                                      {wide(cotangents[0]), wide(cotangents[1])});
      const Tensors before{cotangents[0].clone(), cotangents[1].clone()};
      for (const MatrixScanAlgorithm algorithm : kAlgorithms) {
        CAPTURE(shape, with_state, static_cast<int>(algorithm));
        const Tensors found =
            gradients(by(algorithm), x.clone(), wide(initial).defined() ? initial.clone() : initial, cotangents);
        check_close_in_norm(found[0].to(DType::f64), exact[0], 1e-5);
        if (with_state) check_close_in_norm(found[1].to(DType::f64), exact[1], 1e-5);
        for (size_t i = 0; i < before.size(); ++i) check_identical(cotangents[i], before[i]);
      }
    }
  }
}

TEST_CASE("mru_scan is matrix_scan of ldu_matrix, forward and backward", "[matrix_scan]") {
  Generator generator(3);
  for (const Shape& shape : {Shape{2, 20, 2, 8, 8}, Shape{1, 600, 1, 4, 4}, Shape{1, 9, 3, 5, 5}}) {
    const Shape state{shape[0], shape[2], shape[4], shape[4]};
    const Tensor m = random_normal(shape, generator, 0, 0.05, DType::f64);
    const Tensor initial = random_normal(state, generator, 0, 1, DType::f64);
    const Tensors cotangents{random_normal(shape, generator, 0, 1, DType::f64),
                             random_normal(state, generator, 0, 1, DType::f64)};
    CAPTURE(shape);
    const auto apart = [](const Tensor& x, const Tensor& h) { return matrix_scan(ldu_matrix(x), h); };
    const auto fused = [](const Tensor& x, const Tensor& h) { return mru_scan(x, h); };
    check_close_in_norm(fused(m, initial).states, apart(m, initial).states, 1e-13);
    const Tensors expected = gradients(apart, m.clone(), initial.clone(), cotangents),
                  actual = gradients(fused, m.clone(), initial.clone(), cotangents);
    for (size_t i = 0; i < expected.size(); ++i) check_close_in_norm(actual[i], expected[i], 1e-12);
  }
}

TEST_CASE("ldu_matrix has determinant 1 and the factors of its definition", "[matrix_scan]") {
  // M = [[1, 3], [5, 2]]: d = exp(-1/4), exp(1/4); lower [[d0, 0], [5, d1]], upper [[d0, 3], [0, d1]].
  const Tensor m = Tensor::from(std::vector<double>{1, 3, 5, 2}, {2, 2});
  const double a = std::exp(-0.25), b = std::exp(0.25);
  check_close(ldu_matrix(m), Tensor::from(std::vector<double>{a * a, 3 * a, 5 * a, 15 + b * b}, {2, 2}), 1e-14);
  check_close(ldu_matrix(Tensor::zeros({3, 8, 8})),
              Tensor::from(
                  [] {
                    std::vector<float> identities(3 * 64);
                    for (size_t i = 0; i < identities.size(); ++i) identities[i] = i % 64 % 9 == 0 ? 1.0f : 0.0f;
                    return identities;
                  }(),
                  {3, 8, 8}),
              0);
}

TEST_CASE("Identities keep the state, a zero matrix ends it, permutations are exact", "[matrix_scan]") {
  Generator generator(4);
  for (const MatrixScanAlgorithm algorithm : kAlgorithms) {
    for (const int64_t order : {3, 8, 16}) {
      CAPTURE(order, static_cast<int>(algorithm));
      const Shape shape{1, 600, 1, order, order};
      const Tensor initial = random_normal({1, 1, order, order}, generator);
      Matrices x(shape);
      for (int64_t t = 0; t < shape[1]; ++t)
        for (int64_t i = 0; i < order; ++i) x.at(0, t, 0, i, (i + t) % order) = 1;
      check_identical(matrix_scan(x.tensor(), initial, algorithm).states, oracle(x.tensor(), initial).to(DType::f32));
      Matrices same(shape);
      for (int64_t t = 0; t < shape[1]; ++t)
        for (int64_t i = 0; i < order; ++i) same.at(0, t, 0, i, i) = 1;
      check_identical(matrix_scan(same.tensor(), initial, algorithm).final, initial);

      Tensor broken = gentle(shape, generator, 0.05);
      select(broken, 1, 301).fill(0);
      const ScanResult result = matrix_scan(broken, initial, algorithm);
      check_identical(stretch(result.states, 301, 600).clone(), Tensor::zeros({1, 299, 1, order, order}));
      const Tensors found = gradients([&](const Tensor& y, const Tensor& h) { return matrix_scan(y, h, algorithm); },
                                      broken.clone(), initial.clone(), {Tensor::ones(shape), Tensor()});
      for (const float value : found[0].to_vector<float>()) REQUIRE(std::isfinite(value));
    }
  }
}

TEST_CASE("Rotations keep their norm over 65536 steps", "[matrix_scan]") {
  Generator generator(5);
  const Matrices x = rotations({1, 65536, 1, 8, 8}, generator);
  for (const MatrixScanAlgorithm algorithm : {MatrixScanAlgorithm::chunked, MatrixScanAlgorithm::sequential}) {
    double sum = 0;
    for (const double value : matrix_scan(x.tensor(), {}, algorithm).final.to_vector<double>()) sum += value * value;
    CHECK(std::abs(std::sqrt(sum / 8) - 1) < 1e-3);
  }
}

TEST_CASE("A state carried from call to call is one long scan", "[matrix_scan]") {
  Generator generator(6);
  const Tensor x = gentle({2, 70, 2, 8, 8}, generator, 0.05), initial = random_normal({2, 2, 8, 8}, generator);
  const ScanResult whole = matrix_scan(x, initial);
  for (const int64_t step : {1, 7, 64}) {
    Tensor state = initial;
    for (int64_t begin = 0; begin < 70; begin += step)
      state = matrix_scan(stretch(x, begin, std::min<int64_t>(70, begin + step)), state).final;
    CAPTURE(step);
    check_identical(state, whole.final);
  }
  const Tensor long_one = gentle({1, 1500, 1, 8, 8}, generator, 0.02);  // cut into stretches, or not
  Tensor state;
  for (int64_t begin = 0; begin < 1500; begin += 100)
    state = mru_scan(stretch(long_one, begin, begin + 100), state).final;
  check_close_in_norm(state, mru_scan(long_one).final, 1e-5);
}

TEST_CASE("Views of a wider projection are read where they lie, and threads change nothing", "[matrix_scan]") {
  Generator generator(7);
  const Tensor wide = random_normal({2, 40, 3, 70}, generator, 0, 0.05);
  const Tensor view = wide.as_strided({2, 40, 3, 8, 8}, {40 * 210, 210, 70, 8, 1}, 5);
  const int before = threads();
  set_threads(1);
  const ScanResult one = mru_scan(view);
  set_threads(4);
  check_identical(mru_scan(view.clone()).states, one.states);
  const Tensor long_one = gentle({1, 1200, 1, 8, 8}, generator, 0.02);
  const Tensor four = matrix_scan(long_one).states;
  set_threads(1);
  check_identical(matrix_scan(long_one).states, four);
  set_threads(before);
}

TEST_CASE("Overflow is found, infinite where the sum is, and goes no further than its rows", "[matrix_scan]") {
  take_matrix_overflow(kCpu);
  for (const MatrixScanAlgorithm algorithm : {MatrixScanAlgorithm::chunked, MatrixScanAlgorithm::sequential}) {
    const int64_t time = 1000;
    // Row 0 doubles until it is infinite, at step 127; the others stay. All entries positive, so nothing is NaN.
    Matrices x(Shape{1, time, 1, 8, 8});
    for (int64_t t = 0; t < time; ++t)
      for (int64_t i = 0; i < 8; ++i) x.at(0, t, 0, i, i) = i == 0 ? 2 : 1;
    const ScanResult diagonal = matrix_scan(x.tensor(), {}, algorithm);
    // An infinity meets zeros in its own row alone.
    const auto last = diagonal.final.to_vector<float>();
    for (size_t i = 8; i < last.size(); ++i) CHECK(last[i] == (i % 9 == 0 ? 1.0f : 0.0f));
    CHECK(std::isinf(Matrices(diagonal.states).at(0, 127, 0, 0, 0)));
    const std::optional<MatrixOverflow> found = take_matrix_overflow(kCpu);
    REQUIRE(found.has_value());
    CHECK(found->time >= 127);
    CHECK(found->time < 127 + kOverflowStretch);
    CHECK_THAT(describe(*found), ContainsSubstring("(batch row 0, head 0) left the range of f32 by time step 127"));
    CHECK_FALSE(take_matrix_overflow(kCpu).has_value());

    const ScanResult positive = matrix_scan(Tensor::full({1, time, 2, 8, 8}, 0.5), {}, algorithm);
    for (const float value : positive.final.to_vector<float>())
      REQUIRE(value == std::numeric_limits<float>::infinity());
    CHECK(take_matrix_overflow(kCpu).has_value());
  }
}

TEST_CASE("A stretch whose product overflows does not harm a state that does not", "[matrix_scan]") {
  // Column 0 of the state is 0 and the others are not touched by what grows.
  const int64_t time = 1100;
  Matrices x(Shape{1, time, 1, 4, 4});
  for (int64_t t = 0; t < time; ++t)
    for (int64_t i = 0; i < 4; ++i) x.at(0, t, 0, i, i) = i == 0 ? 4 : 1;
  Tensor initial = Tensor::ones({1, 1, 4, 4});
  for (int64_t i = 0; i < 4; ++i) initial.data<float>()[i * 4] = 0;
  take_matrix_overflow(kCpu);
  check_identical(matrix_scan(x.tensor(), initial).final, initial);
  CHECK_FALSE(take_matrix_overflow(kCpu).has_value());
}

TEST_CASE("Scans of no steps or no chains, and what matrix scans refuse", "[matrix_scan]") {
  for (const MatrixScanAlgorithm algorithm : kAlgorithms) {
    const ScanResult none = matrix_scan(Tensor::ones({2, 0, 3, 2, 2}), {}, algorithm);
    check_identical(
        none.final,
        Tensor::from(std::vector<float>{1, 0, 0, 1}, {1, 1, 2, 2}).as_strided({2, 3, 2, 2}, {0, 0, 2, 1}, 0).clone());
    CHECK(matrix_scan(Tensor::ones({0, 4, 3, 2, 2}), {}, algorithm).states.elements() == 0);
  }
  const Tensor x = Tensor::ones({1, 4, 2, 3, 3});
  CHECK_THROWS_WITH(matrix_scan(Tensor::ones({4, 2, 3, 3})), ContainsSubstring("[batch, time, head, order, order]"));
  CHECK_THROWS_WITH(matrix_scan(Tensor::ones({1, 4, 2, 3, 2})), ContainsSubstring("[batch, time, head, order, order]"));
  CHECK_THROWS_WITH(matrix_scan(transpose(x, -1, -2)), ContainsSubstring("each matrix in one piece"));
  CHECK_THROWS_WITH(matrix_scan(x, Tensor::ones({1, 2, 3, 2})), ContainsSubstring("initial state"));
  CHECK_THROWS_WITH(mru_scan(x, Tensor::ones({1, 2, 3, 3}, DType::f64)), ContainsSubstring("mru_scan"));
  CHECK_THROWS_WITH(ldu_matrix(Tensor::ones({2, 3})), ContainsSubstring("[..., order, order]"));
}

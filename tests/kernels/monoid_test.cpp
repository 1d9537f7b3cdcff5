#include "monoid/kernels/monoid.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/tests/support/catch.h"

using namespace monoid;

namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr int kSteps = 60;

// Elements of each monoid, and states they may meet.
struct AffineCase {
  using M = Affine<double>;
  static M draw(Generator& generator) { return {4 * generator.uniform() - 2, 4 * generator.uniform() - 2}; }
  static std::vector<double> states() { return {-3, 0, 0.25, 1e6}; }
};
struct ComplexAffineCase {
  using M = Affine<Complex<double>>;
  static Complex<double> number(Generator& generator) {
    return Complex<double>(3 * generator.uniform() - 1.5, 3 * generator.uniform() - 1.5);
  }
  static M draw(Generator& generator) { return {number(generator), number(generator)}; }
  static std::vector<Complex<double>> states() {
    return {Complex<double>(0), Complex<double>(-3, 2), Complex<double>(0, 1e6)};
  }
};
struct LogAffineCase {
  using M = LogAffine<double>;
  static double log_of(Generator& generator) {
    return generator.below(4) == 0 ? kNothing : 20 * generator.uniform() - 10;
  }
  static M draw(Generator& generator) { return {log_of(generator), log_of(generator)}; }
  static std::vector<double> states() { return {kNothing, -700, 0, 5}; }
};
struct GatedCase {
  using M = GatedRun<double>;
  static M draw(Generator& generator) {
    const double scale = std::pow(10, -8 * generator.uniform());
    return combine(M::identity(),
                   GatedStep<double>{{0.5 * scale, generator.below(2) == 0 ? 1.0 : -1.0}, generator.uniform()});
  }
  static std::vector<double> states() { return {0, 1e-30, 0.5, 1e3}; }
};

bool agree(double x, double y, double) { return x == y || x == Approx(y).epsilon(1e-12); }
// A part may cancel: the number is right in its size, or in that of what went into it.
bool agree(Complex<double> x, Complex<double> y, double scale) {
  return std::hypot(x.re - y.re, x.im - y.im) <= 1e-12 * (std::hypot(y.re, y.im) + scale);
}
double size_of_state(double) { return 0; }
double size_of_state(Complex<double> x) { return 1 + std::hypot(x.re, x.im); }

template <class Case>
void check_laws() {
  using M = typename Case::M;
  Generator generator(7);
  std::vector<M> elements;
  for (int i = 0; i < kSteps; ++i) elements.push_back(Case::draw(generator));
  for (const auto state : Case::states()) {
    const double scale = 10 * size_of_state(state);
    CAPTURE(real_part(state), scale);
    const auto same = [&](const M& a, const M& b) { CHECK(agree(a.advance(state), b.advance(state), scale)); };
    for (size_t i = 0; i + 2 < elements.size(); ++i) {
      const M &a = elements[i], &b = elements[i + 1], &c = elements[i + 2];
      same(combine(M::identity(), a), a);
      same(combine(a, M::identity()), a);
      same(combine(combine(a, b), c), combine(a, combine(b, c)));
    }
    auto sequential = state;
    for (const M& element : elements) sequential = element.advance(sequential);
    for (const size_t chunk : {1u, 7u, 16u, 60u}) {
      auto chunked = state;
      for (size_t begin = 0; begin < elements.size(); begin += chunk) {
        M summary = M::identity();
        for (size_t i = begin; i < std::min(begin + chunk, elements.size()); ++i)
          summary = combine(summary, elements[i]);
        chunked = summary.advance(chunked);
      }
      CAPTURE(chunk);
      CHECK(agree(chunked, sequential, scale));
    }
  }
}

}  // namespace

TEST_CASE("affine maps form a monoid, and chunks of them replace their steps") { check_laws<AffineCase>(); }
TEST_CASE("complex affine maps form a monoid") { check_laws<ComplexAffineCase>(); }
TEST_CASE("log-affine maps form a monoid, -inf included") { check_laws<LogAffineCase>(); }
TEST_CASE("runs of gated steps form a monoid over gates from 1e-8 to 1 - 1e-8") { check_laws<GatedCase>(); }

TEST_CASE("complex arithmetic is that of std::complex, and of the reals where the imaginary parts are 0") {
  Generator generator(8);
  const auto draw = [&] { return ComplexAffineCase::number(generator); };
  const auto standard = [](Complex<double> x) { return std::complex<double>(x.re, x.im); };
  const auto same = [](Complex<double> x, std::complex<double> y) {
    CHECK(std::abs(std::complex(x.re, x.im) - y) < 1e-14);
  };
  for (int i = 0; i < kSteps; ++i) {
    const Complex<double> a = draw(), x = draw(), b = draw();
    same(a * x, standard(a) * standard(x));
    same(multiply_add(a, x, b), standard(a) * standard(x) + standard(b));
    same(conjugate(a) + x, std::conj(standard(a)) + standard(x));
    CHECK(real_part(a) == a.re);
    const Complex<double> real = Affine<Complex<double>>{Complex(a.re), Complex(b.re)}.advance(Complex(x.re));
    CHECK(real.re == Affine<double>{a.re, b.re}.advance(x.re));
    CHECK(real.im == 0);
  }
}

TEST_CASE("matrices form a monoid that does not commute, and chunks of them replace their steps") {
  constexpr int kOrder = 3;
  using M = MatrixProduct<double, kOrder>;
  Generator generator(8);
  std::vector<M> elements(kSteps);
  for (M& element : elements)
    for (auto& row : element.row)
      for (double& x : row.x) x = 2 * generator.uniform() - 1;
  const MatrixRow<double, kOrder> state{{1, -2, 0.5}};
  const auto same = [&](const MatrixRow<double, kOrder>& a, const MatrixRow<double, kOrder>& b, double scale) {
    for (int j = 0; j < kOrder; ++j) CHECK(std::abs(a.x[j] - b.x[j]) <= 1e-13 * scale);
  };
  for (size_t i = 0; i + 2 < elements.size(); ++i) {
    const M &a = elements[i], &b = elements[i + 1], &c = elements[i + 2];
    same(combine(M::identity(), a).advance(state), a.advance(state), 1);
    same(combine(a, M::identity()).advance(state), a.advance(state), 1);
    same(combine(combine(a, b), c).advance(state), combine(a, combine(b, c)).advance(state), 10);
    same(combine(a, b).advance(state), b.advance(a.advance(state)), 10);
    CHECK(std::abs(combine(a, b).advance(state).x[0] - combine(b, a).advance(state).x[0]) > 1e-6);
  }
  MatrixRow<double, kOrder> sequential = state;
  for (const M& element : elements) sequential = element.advance(sequential);
  double largest = 0;
  for (const double x : sequential.x) largest = std::max(largest, std::abs(x));
  for (const size_t chunk : {1u, 7u, 16u, 60u}) {
    CAPTURE(chunk);
    MatrixRow<double, kOrder> chunked = state;
    for (size_t begin = 0; begin < elements.size(); begin += chunk) {
      M product = M::identity();
      for (size_t i = begin; i < std::min(begin + chunk, elements.size()); ++i) product = combine(product, elements[i]);
      chunked = product.advance(chunked);
    }
    for (int j = 0; j < kOrder; ++j) CHECK(std::abs(chunked.x[j] - sequential.x[j]) <= 1e-9 * largest);
  }
}

TEST_CASE("the log-affine monoid is the affine one in logarithms") {
  const LogAffine<double> left{-0.5, 1.0}, right{0.25, -2.0};
  const auto exponential = [](const LogAffine<double>& m) {
    return Affine<double>{std::exp(m.log_a), std::exp(m.log_b)};
  };
  const Affine<double> expected = combine(exponential(left), exponential(right)),
                       actual = exponential(combine(left, right));
  CHECK(actual.a == Approx(expected.a).epsilon(1e-14));
  CHECK(actual.b == Approx(expected.b).epsilon(1e-14));
}

TEST_CASE("logaddexp is exact where one side is nothing and infinite where one side is") {
  CHECK(logaddexp(kNothing, kNothing) == kNothing);
  CHECK(logaddexp(kNothing, 2.5) == 2.5);
  CHECK(logaddexp(2.5, kNothing) == 2.5);
  CHECK(logaddexp(-kNothing, -kNothing) == -kNothing);
  CHECK(logaddexp(1000.0, 1000.0) == Approx(1000 + std::log(2.0)).epsilon(1e-15));
  CHECK(std::isnan(logaddexp(std::nan(""), kNothing)));
  CHECK(std::isnan(logaddexp(kNothing, std::nan(""))));
}

TEST_CASE("a gate's parts add up, and its small half keeps its relative precision in f32") {
  for (const float minor : {0.5f, 0.3f, 6.1e-6f, 1e-30f, 0.0f}) {
    for (const float lean : {-1.0f, 1.0f}) {
      CAPTURE(minor, lean);
      const MinorGate<float> gate{minor, lean};
      CHECK(gate.keep(2) + gate.take(2) == Approx(2).epsilon(1e-6));
      CHECK((lean > 0 ? gate.keep(2) : gate.take(2)) == 2 * minor);
      CHECK(gate.blend(3, 3) == 3);
      CHECK(gate.blend(0, 1) == Approx(gate.take(1)).epsilon(1e-6));
    }
  }
}

TEST_CASE("a run of slow gates loses what the product of rounded gates would misplace") {
  // 4096 steps of z = 6e-6 in f32: 1 - z rounds to a multiple of 6e-8, off by up to 0.5% of z.
  const float z = 6.1441e-6f;
  GatedRun<float> run = GatedRun<float>::identity();
  float product = 1;
  for (int i = 0; i < 4096; ++i) {
    run = combine(run, GatedStep<float>{{z, -1.0f}, 1.0f});
    product *= 1 - z;
  }
  const double exact = -std::expm1(4096 * std::log1p(-static_cast<double>(z)));
  CHECK(std::abs(run.lose / exact - 1) < 1e-5);
  CHECK(std::abs((1 - product) / exact - 1) > 1e-4);
}

namespace {

using Partial = SoftmaxPartial<double>;

void check_same(const Partial& a, const Partial& b) {
  CHECK(a.max == b.max);
  CHECK(a.sum == Approx(b.sum).epsilon(1e-12));
  CHECK(a.output == Approx(b.output).epsilon(1e-12).margin(1e-12 * b.sum));
}

// Keys with scores from -600 to 600, some of them -inf (masked): exponentials far outside of the range of doubles.
std::vector<Partial> keys(int count, uint64_t seed) {
  Generator generator(seed);
  std::vector<Partial> result;
  for (int i = 0; i < count; ++i) {
    const double score = generator.below(4) == 0 ? kNothing : 1200 * generator.uniform() - 600;
    result.push_back({score, score == kNothing ? 0.0 : 1.0, score == kNothing ? 0.0 : 2 * generator.uniform() - 1});
  }
  return result;
}

Partial fold(const std::vector<Partial>& elements, size_t begin, size_t end) {
  Partial all = Partial::identity();
  for (size_t i = begin; i < std::min(end, elements.size()); ++i) all = combine(all, elements[i]);
  return all;
}

}  // namespace

TEST_CASE("softmax partials form a monoid, masked keys and empty stretches included") {
  const auto elements = keys(kSteps, 8);
  for (size_t i = 0; i + 2 < elements.size(); ++i) {
    const Partial &a = elements[i], &b = elements[i + 1], &c = elements[i + 2];
    check_same(combine(Partial::identity(), a), a);
    check_same(combine(a, Partial::identity()), a);
    check_same(combine(combine(a, b), c), combine(a, combine(b, c)));
  }
  check_same(combine(Partial::identity(), Partial::identity()), Partial::identity());
  for (const size_t chunk : {1u, 7u, 16u, 60u}) {
    Partial all = Partial::identity();
    for (size_t begin = 0; begin < elements.size(); begin += chunk)
      all = combine(all, fold(elements, begin, begin + chunk));
    CAPTURE(chunk);
    check_same(all, fold(elements, 0, elements.size()));
  }
}

TEST_CASE("a softmax partial of all keys is the softmax-weighted average and the log-sum-exp") {
  const auto elements = keys(40, 9);
  double greatest = kNothing, sum = 0, output = 0;
  for (const Partial& key : elements) greatest = std::max(greatest, key.max);
  for (const Partial& key : elements) {
    sum += std::exp(key.max - greatest);
    output += std::exp(key.max - greatest) * key.output;
  }
  const Partial all = fold(elements, 0, elements.size());
  CHECK(all.average() == Approx(output / sum).epsilon(1e-14));
  CHECK(all.log_sum() == Approx(greatest + std::log(sum)).epsilon(1e-14));
  CHECK(Partial::identity().average() == 0);
  CHECK(Partial::identity().log_sum() == kNothing);
}

TEST_CASE("infinite scores take all of a softmax partial, and share it") {
  const Partial finite{700, 1, 5}, first{-kNothing, 1, 2}, second{-kNothing, 1, 4};
  CHECK(combine(finite, first).average() == 2);
  CHECK(combine(first, finite).average() == 2);
  CHECK(combine(combine(first, finite), second).average() == 3);
  CHECK(combine(first, second).log_sum() == -kNothing);
}

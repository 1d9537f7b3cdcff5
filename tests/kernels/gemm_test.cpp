#include "monoid/kernels/cpu/gemm.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/kernels/cpu/blas.h"
#include "monoid/tests/support/catch.h"

namespace monoid::cpu {
namespace {

enum class Layout { rows, columns };

// A matrix of random numbers whose lines are `gap` elements further apart than they are long.
template <class T>
struct Operand {
  Operand(int64_t rows, int64_t columns, Layout layout, int64_t gap, uint64_t seed) {
    const int64_t length = layout == Layout::rows ? columns : rows, count = layout == Layout::rows ? rows : columns;
    Generator generator(seed);
    const auto random = random_normal({count * (length + gap) + 1}, generator, 0, 1, DType::f64).to_vector<double>();
    values.assign(random.begin(), random.end());
    steps = {nullptr, rows, columns, length + gap, 1};
    if (layout == Layout::columns) std::swap(steps.row_step, steps.column_step);
  }

  // Off by one element, so that nothing is aligned by luck.
  Matrix<T> matrix() { return {values.data() + 1, steps.rows, steps.columns, steps.row_step, steps.column_step}; }
  Matrix<const T> matrix() const {
    return {values.data() + 1, steps.rows, steps.columns, steps.row_step, steps.column_step};
  }

  std::vector<T> values;
  Matrix<T> steps;
};

template <class T>
T& at(const Matrix<T>& x, int64_t i, int64_t j) {
  return x.data[i * x.row_step + j * x.column_step];
}

// Checks c against alpha a b + beta before + bias, computed in double; the bound is that of a sum of k products.
template <class T>
void check_product(double alpha, const Matrix<const std::type_identity_t<T>>& a,
                   const Matrix<const std::type_identity_t<T>>& b, double beta,
                   const Matrix<const std::type_identity_t<T>>& before, const Matrix<T>& c,
                   const std::vector<std::type_identity_t<T>>& bias = {}) {
  const double tolerance = 4 * std::numeric_limits<T>::epsilon();
  int failures = 0;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.columns; ++j) {
      double expected = bias.empty() ? 0 : bias[static_cast<size_t>(j)], magnitude = std::abs(expected);
      if (beta != 0) expected += beta * at(before, i, j), magnitude += std::abs(beta * at(before, i, j));
      for (int64_t k = 0; k < a.columns; ++k) {
        const double product = alpha * at(a, i, k) * at(b, k, j);
        expected += product;
        magnitude += std::abs(product);
      }
      const double actual = at(c, i, j), bound = tolerance * (magnitude + 1e-30);
      if (!(std::abs(actual - expected) <= bound) && ++failures <= 3) {
        CAPTURE(i, j, actual, expected);
        CHECK(std::abs(actual - expected) <= bound);
      }
    }
  }
  CHECK(failures == 0);
}

template <class T>
void check_all_shapes(std::initializer_list<int64_t> extents) {
  uint64_t seed = 1;
  for (const int64_t m : extents) {
    for (const int64_t n : extents) {
      for (const int64_t k : extents) {
        // The layouts and gaps rotate with the shape, so that each is met with every extent.
        const auto bits = seed++;
        const auto layout = [&](int bit) { return (bits * 7 >> bit) % 2 ? Layout::columns : Layout::rows; };
        const int64_t gap = static_cast<int64_t>(bits % 3) * 5;
        Operand<T> a(m, k, layout(0), gap, 1), b(k, n, layout(1), gap, 2), c(m, n, layout(2), gap, 3);
        const Operand<T> before = c;
        const Matrix<const T> old = before.matrix();
        const double alpha = bits % 2 ? 1 : -0.5, beta = std::array{0.0, 1.0, 0.25}[bits % 3];
        CAPTURE(m, n, k, layout(0), layout(1), layout(2), gap, alpha, beta);
        gemm<T>(T(alpha), a.matrix(), b.matrix(), T(beta), c.matrix());
        check_product(alpha, a.matrix(), b.matrix(), beta, old, c.matrix());
        // What lies between the lines of c is untouched: writing the old values back must restore everything.
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < n; ++j) at(c.matrix(), i, j) = at(old, i, j);
        }
        CHECK(c.values == before.values);
      }
    }
  }
}

}  // namespace

TEST_CASE("gemm is right for every mix of awkward extents, layouts, gaps, alpha and beta", "[gemm]") {
  check_all_shapes<float>({0, 1, 7, 8, 127, 129});
  check_all_shapes<double>({0, 1, 3, 8, 9, 65});
}

TEST_CASE("few rows or few columns: every count up to the limit of the thin path and past it", "[gemm]") {
  for (int64_t few = 1; few <= 10; ++few) {
    for (const Layout layout : {Layout::rows, Layout::columns}) {
      CAPTURE(few, layout);
      Operand<float> a(few, 83, Layout::rows, 0, 1), b(83, 130, layout, 2, 2), c(few, 130, Layout::rows, 1, 3);
      gemm<float>(1, a.matrix(), b.matrix(), 0, c.matrix());
      check_product(1, a.matrix(), b.matrix(), 0, c.matrix(), c.matrix());
      Operand<float> tall(130, few, Layout::rows, 1, 4);
      gemm<float>(1, b.matrix().transposed(), a.matrix().transposed(), 0, tall.matrix());
      check_product(1, b.matrix().transposed(), a.matrix().transposed(), 0, tall.matrix(), tall.matrix());
    }
  }
}

TEST_CASE("a long inner extent is summed in slices, with alpha, beta and bias applied once", "[gemm]") {
  const auto [m, n, k] = GENERATE(table<int64_t, int64_t, int64_t>({{33, 20, 5001}, {1, 5, 9000}, {260, 70, 2500}}));
  CAPTURE(m, n, k);
  Operand<float> a(m, k, Layout::columns, 0, 1), b(k, n, Layout::rows, 0, 2), c(m, n, Layout::rows, 3, 3);
  const Operand<float> before = c;
  std::vector<float> bias(static_cast<size_t>(n), 100);
  gemm<float>(2, a.matrix(), b.matrix(), 0.5f, c.matrix(), {}, {bias.data(), m, n, 0, 1});
  check_product(2, a.matrix(), b.matrix(), 0.5, before.matrix(), c.matrix(), bias);
}

TEST_CASE("NaN in c does not leak where beta is 0, nor from a or b where alpha is 0", "[gemm]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t m : {1, 40}) {
    for (const int64_t k : {0, 30, 5000}) {
      Operand<float> a(m, k, Layout::rows, 0, 1), b(k, 33, Layout::rows, 0, 2), c(m, 33, Layout::rows, 0, 3);
      c.values.assign(c.values.size(), nan);
      gemm<float>(1, a.matrix(), b.matrix(), 0, c.matrix());
      check_product(1, a.matrix(), b.matrix(), 0, c.matrix(), c.matrix());
      a.values.assign(a.values.size(), nan);
      gemm<float>(0, a.matrix(), b.matrix(), 1, c.matrix());
      for (int64_t i = 0; i < m * 33; ++i) REQUIRE(std::isfinite(c.matrix().data[i]));
    }
  }
}

TEST_CASE("NaN and infinity in the operands reach exactly the elements they should", "[gemm]") {
  Operand<float> a(20, 30, Layout::rows, 0, 1), b(30, 25, Layout::rows, 0, 2), c(20, 25, Layout::rows, 0, 3);
  at(a.matrix(), 3, 4) = std::numeric_limits<float>::infinity();
  at(b.matrix(), 7, 9) = std::numeric_limits<float>::quiet_NaN();
  gemm<float>(1, a.matrix(), b.matrix(), 0, c.matrix());
  for (int64_t i = 0; i < 20; ++i) {
    for (int64_t j = 0; j < 25; ++j) {
      CAPTURE(i, j);
      CHECK(std::isnan(at(c.matrix(), i, j)) == (j == 9));
      if (j != 9) CHECK(std::isinf(at(c.matrix(), i, j)) == (i == 3));
    }
  }
}

TEST_CASE("products summed over a batch axis equal one product with a longer inner extent", "[gemm]") {
  // [5, 40, 12]^T [5, 40, 9] summed over 5: contiguous, it folds; with a gap between the matrices it cannot.
  for (const int64_t gap : {0, 17}) {
    CAPTURE(gap);
    Operand<double> a(5, 40 * 12, Layout::rows, gap, 1), b(5, 40 * 9, Layout::rows, gap, 2),
        c(12, 9, Layout::rows, 0, 3);
    const Matrix<double> left{a.matrix().data, 12, 40, 1, 12}, right{b.matrix().data, 40, 9, 9, 1};
    gemm<double>(1, left, right, 0, c.matrix(), {{5}, {40 * 12 + gap}, {40 * 9 + gap}, {0}});
    for (int64_t i = 0; i < 12; ++i) {
      for (int64_t j = 0; j < 9; ++j) {
        double expected = 0;
        for (int64_t p = 0; p < 5; ++p) {
          for (int64_t k = 0; k < 40; ++k) {
            expected += at(left.shifted(p * (480 + gap)), i, k) * at(right.shifted(p * (360 + gap)), k, j);
          }
        }
        CHECK(std::abs(at(c.matrix(), i, j) - expected) < 1e-11);
      }
    }
  }
}

TEST_CASE("gemm has the same bits on any number of threads, and on every run", "[gemm]") {
  const int before = threads();
  const auto [m, n, k] = GENERATE(table<int64_t, int64_t, int64_t>(
      {{700, 530, 64}, {1, 3000, 256}, {96, 65, 9000}, {2, 1, 100000}, {1030, 4, 300}}));
  CAPTURE(m, n, k);
  Operand<float> a(m, k, Layout::rows, 0, 1), b(k, n, Layout::columns, 0, 2), c(m, n, Layout::rows, 0, 3);
  set_threads(1);
  gemm<float>(1, a.matrix(), b.matrix(), 0, c.matrix());
  const std::vector<float> expected = c.values;
  for (const int count : {2, 3, 4, 4, 4}) {
    set_threads(count);
    gemm<float>(1, a.matrix(), b.matrix(), 0, c.matrix());
    CHECK((c.values == expected));
  }
  set_threads(before);
}

TEST_CASE("gemm called from several threads at once is right on each", "[gemm]") {
  constexpr int kCallers = 4;
  std::vector<Operand<float>> results;
  const Operand<float> a(200, 90, Layout::rows, 0, 1), b(90, 150, Layout::rows, 0, 2);
  for (int i = 0; i < kCallers; ++i) results.emplace_back(200, 150, Layout::rows, 0, 3);
  std::vector<std::thread> callers;
  for (Operand<float>& c : results) {
    callers.emplace_back([&a, &b, &c] {
      for (int round = 0; round < 20; ++round) gemm<float>(1, a.matrix(), b.matrix(), 0, c.matrix());
    });
  }
  for (std::thread& caller : callers) caller.join();
  check_product(1, a.matrix(), b.matrix(), 0, a.matrix(), results[0].matrix());
  for (const Operand<float>& c : results) CHECK((c.values == results[0].values));
}

TEST_CASE("gemm refuses what it cannot multiply", "[gemm]") {
  Operand<float> a(4, 6, Layout::rows, 0, 1), b(6, 5, Layout::rows, 0, 2), c(4, 5, Layout::rows, 0, 3);
  CHECK_THROWS_WITH(gemm<float>(1, a.matrix(), a.matrix(), 0, c.matrix()), ContainsSubstring("[4, 6] x [4, 6]"));
  const Matrix<float> sparse{a.values.data(), 4, 3, 6, 2};
  CHECK_THROWS_WITH(gemm<float>(1, sparse, b.matrix().block(0, 0, 3, 5), 0, c.matrix()),
                    ContainsSubstring("unit step") && ContainsSubstring("(6, 2)"));
}

TEST_CASE("OpenBLAS runs kernels made for this CPU", "[gemm]") {
  const std::string description = blas_description();
  CAPTURE(description);
  CHECK_THAT(description, ContainsSubstring("OpenBLAS 0."));
  if (!std::getenv("OPENBLAS_CORETYPE") && !std::getenv("MONOID_ISA")) {
    CHECK_THAT(description, !ContainsSubstring("Prescott"));
  }
}

}  // namespace monoid::cpu

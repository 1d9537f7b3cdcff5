#include "monoid/tests/support/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "monoid/tests/support/catch.h"

namespace monoid::test {
namespace {

constexpr int kReported = 3;

// Reports up to kReported elements for which is_bad(actual, expected), and makes the test fail on each.
template <class IsBad>
void report(const Tensor& actual, const Tensor& expected, IsBad is_bad) {
  REQUIRE(actual.shape() == expected.shape());
  REQUIRE(actual.device() == expected.device());
  const std::vector<double> a = actual.to_vector<double>(), b = expected.to_vector<double>();
  int mismatches = 0;
  for (size_t index = 0; index < a.size(); ++index) {
    if (!is_bad(a[index], b[index])) continue;
    if (++mismatches <= kReported)
      FAIL_CHECK(str("at ", index, ": ", a[index], " instead of ", b[index], ", off by ", a[index] - b[index]));
  }
  if (mismatches > kReported) FAIL_CHECK(str(mismatches, " of ", a.size(), " elements differ"));
  SUCCEED();
}

}  // namespace

void check_close(const Tensor& actual, const Tensor& expected, double relative, double absolute) {
  report(actual, expected, [=](double a, double b) {
    if (std::isnan(b)) return !std::isnan(a);
    if (std::isinf(b)) return a != b;
    return !(std::abs(a - b) <= absolute + relative * std::abs(b));
  });
}

void check_close_in_norm(const Tensor& actual, const Tensor& expected, double tolerance, double least) {
  double largest = least;
  for (double value : expected.to_vector<double>()) largest = std::max(largest, std::abs(value));
  check_close(actual, expected, 0, tolerance * largest);
}

void check_identical(const Tensor& actual, const Tensor& expected) {
  REQUIRE(actual.dtype() == expected.dtype());
  report(actual, expected, [](double a, double b) { return std::memcmp(&a, &b, sizeof(a)) != 0; });
}

}  // namespace monoid::test

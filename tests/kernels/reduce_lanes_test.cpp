#include "monoid/kernels/cpu/reduce_lanes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

// body() as each instruction set of this machine compiles it.
template <class Body>
void on_each_isa(Body body) {
  INFO("baseline");
  body();
  if (cpu::isa() >= cpu::Isa::avx2) cpu::detail::run_avx2(body);
  if (cpu::isa() >= cpu::Isa::avx512) cpu::detail::run_avx512(body);
}

template <class T>
std::vector<T> numbers(int64_t count, uint64_t seed) {
  Generator generator(seed);
  return random_normal({count}, generator, 0, 1, dtype_of<T>).template to_vector<T>();
}

template <class T>
void check_reductions() {
  for (int64_t count : {0, 1, 3, 31, 32, 33, 63, 64, 65, 127, 128, 1000, 8191}) {
    const std::vector<T> x = numbers<T>(count, 7), y = numbers<T>(count, 8);
    long double sum = 0, dot = 0, magnitude = 0, greatest = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < x.size(); ++i) {
      sum += x[i];
      dot += static_cast<long double>(x[i]) * y[i];
      magnitude += std::abs(static_cast<long double>(x[i])) + std::abs(static_cast<long double>(x[i]) * y[i]);
      greatest = std::max(greatest, static_cast<long double>(x[i]));
    }
    const long double tolerance = std::numeric_limits<T>::epsilon() * magnitude;
    const T first_sum = cpu::row_sum(x.data(), count);
    T sums[3] = {}, dots[3] = {}, maxima[3] = {};
    int run = 0;
    on_each_isa([&] {
      sums[run] = cpu::row_sum(x.data(), count);
      dots[run] = cpu::row_dot(x.data(), y.data(), count);
      maxima[run++] = cpu::row_max(x.data(), count);
    });
    for (int i = 0; i < run; ++i) {
      CAPTURE(count, i);
      CHECK(sums[i] == first_sum);  // the same additions on every instruction set
      CHECK(std::abs(sums[i] - sum) <= tolerance);
      CHECK(std::abs(dots[i] - dot) <= tolerance);
      CHECK(maxima[i] == static_cast<T>(greatest));
    }
  }
}

}  // namespace

TEST_CASE("lane reductions agree with plain loops at every length, and sums bitwise across instruction sets",
          "[reduce_lanes]") {
  SECTION("f32") { check_reductions<float>(); }
  SECTION("f64") { check_reductions<double>(); }
}

}  // namespace monoid

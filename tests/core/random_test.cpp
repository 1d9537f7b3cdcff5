#include "monoid/core/random.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "monoid/core/parallel.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {

TEST_CASE("Philox gives the published answers", "[random]") {
  using Words = std::array<uint32_t, 4>;
  constexpr uint32_t ones = 0xffffffff;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  CHECK(philox(0x299f31d0a4093822, 0x85a308d3243f6a88) ==
        philox({0x243f6a88, 0x85a308d3, 0, 0}, {0xa4093822, 0x299f31d0}));
}

TEST_CASE("any number of a stream can be had by its index", "[random]") {
  const auto block = philox(7, 5);
  for (uint32_t i = 0; i < 4; ++i) CHECK(random_bits(7, 20 + i) == block[i]);
}

TEST_CASE("a generator resumes from its seed and offset", "[random]") {
  Generator generator(42);
  random_normal({7}, generator);
  generator.below(10);
  Generator resumed(generator.seed(), generator.offset());
  CHECK(generator.offset() == 7 * 4 + 4);
  test::check_identical(random_uniform({100}, generator), random_uniform({100}, resumed));
  CHECK(generator.below(1'000'000) == resumed.below(1'000'000));
  CHECK(generator.uniform() == resumed.uniform());
  const uint64_t first = generator.reserve(5);
  CHECK(first % 4 == 0);
  CHECK(generator.offset() == first + 8);
}

TEST_CASE("random tensors do not depend on the number of threads, and differ by seed and call", "[random]") {
  const int before = threads();
  Generator one(1), two(1), other(2);
  set_threads(1);
  const Tensor x = random_normal({100'000}, one);
  set_threads(3);
  test::check_identical(random_normal({100'000}, two), x);
  set_threads(before);
  CHECK(random_normal({8}, one).to_vector<float>() != random_normal({8}, other).to_vector<float>());
  CHECK(random_normal({8}, one).to_vector<float>() != random_normal({8}, one).to_vector<float>());
}

TEST_CASE("uniform numbers fill their range evenly", "[random]") {
  Generator generator(5);
  constexpr int64_t kCount = 1 << 18;
  const std::vector<double> x = random_uniform({kCount}, generator, -2, 6, DType::f64).to_vector<double>();
  CHECK(*std::min_element(x.begin(), x.end()) >= -2);
  CHECK(*std::max_element(x.begin(), x.end()) < 6);
  std::vector<int> histogram(64);
  for (double value : x) ++histogram[static_cast<size_t>((value + 2) * 8)];
  // Each bin is binomial with mean 4096 and deviation 63.5; five deviations of 64 bins are missed once in 30,000 seeds.
  for (int count : histogram) CHECK(std::abs(count - 4096) < 318);
  CHECK(uniform_unit(0) == 0.0f);
  CHECK(uniform_unit(0xffffffff) < 1.0f);
}

TEST_CASE("normal numbers have the moments and the independence of a Gaussian", "[random]") {
  Generator generator(6);
  constexpr int64_t kCount = 1 << 18;
  const std::vector<double> x = random_normal({kCount}, generator, 3, 2, DType::f64).to_vector<double>();
  double moments[5] = {}, neighbours = 0, tail = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double z = (x[i] - 3) / 2;
    for (int power = 1; power <= 4; ++power) moments[power] += std::pow(z, power) / kCount;
    if (i) neighbours += z * (x[i - 1] - 3) / 2 / kCount;
    tail += std::abs(z) > 1.959964 ? 1.0 / kCount : 0;
  }
  // Five standard errors of each: sqrt(variance of z^k / count).
  CHECK(std::abs(moments[1]) < 5 * std::sqrt(1.0 / kCount));
  CHECK(std::abs(moments[2] - 1) < 5 * std::sqrt(2.0 / kCount));
  CHECK(std::abs(moments[3]) < 5 * std::sqrt(15.0 / kCount));
  CHECK(std::abs(moments[4] - 3) < 5 * std::sqrt(96.0 / kCount));
  CHECK(std::abs(neighbours) < 5 * std::sqrt(1.0 / kCount));
  CHECK(std::abs(tail - 0.05) < 5 * std::sqrt(0.05 * 0.95 / kCount));
  CHECK(std::all_of(x.begin(), x.end(), [](double value) { return std::isfinite(value); }));
}

TEST_CASE("integers below a bound are all reached and none beyond", "[random]") {
  Generator generator(9);
  std::vector<int> counts(7);
  const Tensor drawn = random_integers({7'000}, generator, 7);
  CHECK(drawn.dtype() == DType::i64);
  for (int64_t value : drawn.to_vector<int64_t>()) ++counts.at(static_cast<size_t>(value));
  for (int count : counts) CHECK(std::abs(count - 1000) < 147);  // five deviations
  CHECK(generator.below(1) == 0);
  CHECK_THROWS_WITH(generator.below(0), ContainsSubstring("bound is 0, wanted at least 1"));
}

}  // namespace monoid

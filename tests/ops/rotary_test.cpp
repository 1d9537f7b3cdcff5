#include "monoid/ops/rotary.h"

#include <cmath>
#include <complex>

#include "monoid/core/random.h"
#include "monoid/ops/attention_cache.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

using test::check_close;
using test::check_identical;

Tensor normal(const Shape& shape, DType dtype = DType::f64) {
  Generator generator(3);
  return random_normal(shape, generator, 0, 1, dtype);
}

Tensor i32(const std::vector<int32_t>& values, const Shape& shape) { return Tensor::from(values, shape); }

// x with pair i of every row multiplied by turn(position, i), a complex number.
template <class Turn>
Tensor turned(const Tensor& x, int64_t pairs, RotaryPairs convention, const std::vector<int64_t>& positions,
              Turn turn) {
  Tensor y = x.clone();
  double* values = y.data<double>();
  const int64_t time = x.size(1), heads = x.size(2), channels = x.size(3);
  for (int64_t row = 0; row < x.size(0) * time * heads; ++row) {
    const int64_t position = positions[static_cast<size_t>(row / heads)];
    for (int64_t i = 0; i < pairs; ++i) {
      const bool halves = convention == RotaryPairs::halves;
      double& a = values[row * channels + (halves ? i : 2 * i)];
      double& b = values[row * channels + (halves ? i + pairs : 2 * i + 1)];
      const std::complex<double> z = std::complex<double>(a, b) * turn(position, i);
      a = z.real();
      b = z.imag();
    }
  }
  return y;
}

}  // namespace

TEST_CASE("rotary turns pairs of channels by position times frequency", "[rotary]") {
  const RotaryPairs convention = GENERATE(RotaryPairs::interleaved, RotaryPairs::halves);
  const int64_t rotated = GENERATE(0, 2, 8, 16);
  CAPTURE(rotated);
  const Tensor x = normal({2, 3, 2, 16});
  const Tensor frequencies = rotary_frequencies(rotated, 500);
  const auto expected = [&](const std::vector<int64_t>& positions) {
    return turned(x, rotated / 2, convention, positions, [&](int64_t t, int64_t i) {
      return std::polar(
          1.0, static_cast<double>(t) * std::pow(500.0, -2 * static_cast<double>(i) / static_cast<double>(rotated)));
    });
  };
  const Tensor table = rotary_table(frequencies, 100, DType::f64);
  check_close(rotary(x, table, convention), expected({0, 1, 2, 0, 1, 2}), 0, 1e-14);
  check_close(rotary(x, table, convention, {.offset = 97}), expected({97, 98, 99, 97, 98, 99}), 0, 1e-14);
  check_close(rotary(x, table, convention, {.ids = i32({5, 0, 99, 7, 7, 1}, {2, 3})}), expected({5, 0, 99, 7, 7, 1}), 0,
              1e-14);
  check_close(rotary(x, table, convention, {.first_key = i32({0, 2}, {2})}), expected({0, 1, 2, 0, 0, 0}), 0, 1e-14);
  check_close(rotary(x, table, convention, {.first_key = i32({1, 0}, {2}), .end_key = i32({10, 100}, {2})}),
              expected({6, 7, 8, 97, 98, 99}), 0, 1e-14);
}

TEST_CASE("angles of far positions are exact to f32", "[rotary]") {
  const Tensor table = rotary_table(rotary_frequencies(64), 65536),
               exact = rotary_table(rotary_frequencies(64), 65536, DType::f64);
  check_close(table.to(DType::f64), exact, 0, 6e-8);
  CHECK(exact.to_vector<double>()[65535 * 32 + 1] ==
        Approx(std::cos(65535 * std::pow(10000.0, -2.0 / 64))).epsilon(1e-9));
}

TEST_CASE("scaling stretches frequencies", "[rotary]") {
  const auto plain = rotary_frequencies(8).to_vector<double>();
  const auto linear = rotary_frequencies(8, 10000, {RotaryScaling::Kind::linear, 4}).to_vector<double>();
  for (size_t i = 0; i < 4; ++i) CHECK(linear[i] == Approx(plain[i] / 4).epsilon(1e-15));
  const RotaryScaling dynamic{RotaryScaling::Kind::dynamic, 2, 100};
  CHECK(rotary_frequencies(8, 10000, dynamic, 100).to_vector<double>() == plain);
  const auto longer = rotary_frequencies(8, 10000, dynamic, 300).to_vector<double>();
  const double theta = 10000 * std::pow(2 * 3.0 - 1, 8.0 / 6);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(longer[i] == Approx(std::pow(theta, -2.0 * static_cast<double>(i) / 8)).epsilon(1e-14));
  }
}

TEST_CASE("xPos in both forms grows queries and shrinks keys", "[rotary]") {
  const int64_t positions = 12, width = 8;
  const Tensor x = normal({1, positions, 1, width});
  std::vector<int64_t> each;
  for (int64_t t = 0; t < positions; ++t) each.push_back(t);
  const auto check_form = [&](const XPos& form, RotaryPairs convention, auto turn) {
    const XPosTables tables = xpos_tables(form, positions, DType::f64);
    check_close(rotary(x, tables.queries, convention),
                turned(x, width / 2, convention, each, [&](int64_t t, int64_t i) { return turn(t, i, 1.0); }), 0,
                1e-13);
    check_close(rotary(x, tables.keys, convention),
                turned(x, width / 2, convention, each, [&](int64_t t, int64_t i) { return turn(t, i, -1.0); }), 0,
                1e-13);
  };
  check_form(block_recurrent_xpos(width, positions), RotaryPairs::halves, [&](int64_t t, int64_t n, double sign) {
    const double d = width, i = 2.0 * static_cast<double>(n), time = static_cast<double>(t);
    const double scale = std::pow((i + 0.4 * d) / (1.4 * d), (time - positions / 2) / 512);
    return std::pow(scale, sign) * std::polar(1.0, time * std::pow(10000.0, -i / d));
  });
  check_form(mru_xpos(width, positions), RotaryPairs::interleaved, [&](int64_t t, int64_t n, double sign) {
    const double d = width, i = 2.0 * static_cast<double>(n + 1);
    const double p = (static_cast<double>(t) - positions / 2.0) / 512;
    const double zeta = (i / (d / 2) + 0.4 * d) / (1 + 0.4 * d);
    return std::pow(zeta, sign * p) * std::polar(1.0, p * std::pow(10000.0, -i / d));
  });
}

TEST_CASE("rotated products depend on distance alone", "[rotary]") {
  const Tensor table = rotary_table(rotary_frequencies(16), 2000, DType::f64);
  const Tensor q = normal({1, 1, 1, 16}), k = normal({2, 1, 1, 16});
  const auto product = [&](int64_t query, int64_t key) {
    const auto a = rotary(q, table, RotaryPairs::halves, {.offset = query}).to_vector<double>();
    const auto b = rotary(slice(k, 0, 1, 2), table, RotaryPairs::halves, {.offset = key}).to_vector<double>();
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  CHECK(product(1907, 1900) == Approx(product(7, 0)).epsilon(1e-10));
}

TEST_CASE("rotary says what it cannot take", "[rotary]") {
  const Tensor x = normal({2, 3, 1, 8}, DType::f32), table = rotary_table(rotary_frequencies(8), 4);
  const auto says = [](const auto& call, const std::string& text) {
    CHECK_THROWS_WITH(call(), ContainsSubstring(text));
  };
  const auto rotates = [&](const Tensor& with, const RotaryPositions& at) {
    return [=] { rotary(x, with, RotaryPairs::halves, at); };
  };
  says(rotates(table, {.offset = 2}), "positions 2 to 5 of a table of 4");
  says(rotates(table, {.ids = i32({0, 1, 2, 3, 4, 0}, {2, 3})}), "position 4 of sequence 1, step 1");
  says(rotates(table, {.end_key = i32({3, 2}, {2})}), "position -1 of sequence 1, step 0");
  says(rotates(table.to(DType::f64), {}), "wanted f32 [2, position, pair]");
  says(rotates(rotary_table(rotary_frequencies(10), 4), {}), "at most 4 pairs");
  says(rotates(table, {.ids = Tensor::zeros({2, 3}, DType::i64)}), "wanted i32");
  says([] { rotary_frequencies(7); }, "7 rotated channels");
}

TEST_CASE("new keys and values go where the cache is told to end", "[rotary][cache]") {
  const Tensor k = normal({2, 3, 2, 4}, DType::f32), v = normal({2, 3, 2, 5}, DType::f32);
  Tensor k_cache = Tensor::full({2, 6, 2, 4}, 9), v_cache = Tensor::full({2, 6, 2, 5}, 9);
  append_to_cache(k, v, i32({3, 6}, {2}), k_cache, v_cache);
  for (const auto& [rows, cache] : {std::pair(k, k_cache), std::pair(v, v_cache)}) {
    check_identical(slice(select(cache, 0, 0), 0, 0, 3), select(rows, 0, 0));
    check_identical(slice(select(cache, 0, 1), 0, 3, 6), select(rows, 0, 1));
    check_identical(slice(select(cache, 0, 0), 0, 3, 6), Tensor::full(rows.shape().without(0), 9));
    check_identical(slice(select(cache, 0, 1), 0, 0, 3), Tensor::full(rows.shape().without(0), 9));
  }
  const auto says = [&](const Tensor& keys, const Tensor& ends, const std::string& text) {
    CHECK_THROWS_WITH(append_to_cache(keys, v, ends, k_cache, v_cache), ContainsSubstring(text));
  };
  says(k, i32({3, 7}, {2}), "sequence 1 would end at 7 of 6 places");
  says(k, i32({2, 6}, {2}), "sequence 0 would end at 2 of 6 places, with 3 new ones");
  says(k, Tensor::zeros({2}, DType::i64), "wanted i32");
  says(normal({2, 3, 1, 4}, DType::f32), i32({3, 6}, {2}), "append_to_cache: the cache is");
  Tape tape;
  says(k.detach().set_requires_grad(), i32({3, 6}, {2}), "detach() them");
}

}  // namespace monoid

#include "monoid/ops/attention.h"

#include <cmath>
#include <limits>

#include "monoid/core/memory.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/rotary.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/ops/attention_oracle.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

using test::AttentionTwin;
using test::check_close;
using test::check_identical;
using Mask = AttentionMask;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Operands {
  Tensor q, k, v;
};

Operands operands(int64_t batch, int64_t queries, int64_t keys, int64_t heads, int64_t key_heads, int64_t channels,
                  int64_t value_channels, DType dtype = DType::f32, uint64_t seed = 1) {
  Generator generator(seed);
  return {random_normal({batch, queries, heads, channels}, generator, 0, 1, dtype),
          random_normal({batch, keys, key_heads, channels}, generator, 0, 1, dtype),
          random_normal({batch, keys, key_heads, value_channels}, generator, 0, 1, dtype)};
}

AttentionTwin run(const Operands& in, const AttentionOptions& options, const Tensor& dy, const Tensor& dl) {
  const Tensor q = in.q.detach().set_requires_grad(), k = in.k.detach().set_requires_grad(),
               v = in.v.detach().set_requires_grad();
  Tape tape;
  const AttentionResult result = attention_with_sums(q, k, v, options);
  tape.backward({result.output, result.log_sum_exp}, {dy, dl});
  return {result.output.detach(), result.log_sum_exp.detach(), q.grad(), k.grad(), v.grad()};
}

// Everything against the definition, in both precisions. Gradients take exp(score - log_sum_exp), whose rounding grows
// with the scores: `score` bounds them.
void check_case(const Operands& in, const AttentionOptions& options, double score = 1) {
  Generator generator(5);
  const Tensor dy = random_normal(in.q.shape().with(3, in.v.size(3)), generator, 0, 1, DType::f64);
  const Tensor dl = random_normal({in.q.size(0), in.q.size(2), in.q.size(1)}, generator, 0, 1, DType::f64);
  const AttentionTwin expected = test::AttentionOracle(in.q, in.k, in.v, options).run(dy, dl);
  for (const DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(dtype);
    const uint64_t place = options.generator ? options.generator->offset() : 0;
    const AttentionTwin actual =
        run({in.q.to(dtype), in.k.to(dtype), in.v.to(dtype)}, options, dy.to(dtype), dl.to(dtype));
    if (options.generator) options.generator->set_offset(place);
    const double tolerance = dtype == DType::f32 ? 4e-6 : 1e-13;
    // Sums that cancel are as precise as their terms, which are of size 1.
    const auto close = [&](const Tensor& a, const Tensor& b) {
      double largest = 1;
      for (const double value : b.to_vector<double>()) largest = std::max(largest, std::abs(value));
      check_close(a.to(DType::f64), b, 0, tolerance * score * largest);
    };
    close(actual.output, expected.output);
    check_close(actual.log_sum_exp.to(DType::f64), expected.log_sum_exp, tolerance, tolerance);
    close(actual.q_gradient, expected.q_gradient);
    close(actual.k_gradient, expected.k_gradient);
    close(actual.v_gradient, expected.v_gradient);
  }
}

Tensor counts(std::vector<int32_t> values) { return Tensor::from(values, {static_cast<int64_t>(values.size())}); }

}  // namespace

TEST_CASE("attention is its definition at every length, under every mask", "[attention]") {
  const auto [queries, keys] = GENERATE(table<int64_t, int64_t>(
      {{1, 1}, {1, 700}, {5, 1}, {63, 63}, {64, 64}, {65, 65}, {1, 65}, {200, 129}, {129, 333}}));
  const Mask mask = GENERATE(Mask::full(), Mask::causal(), Mask::window(1), Mask::window(40), Mask::window(333),
                             Mask::blocks(1), Mask::blocks(48), Mask::blocks(400));
  CAPTURE(queries, keys, static_cast<int>(mask.kind), mask.width);
  check_case(operands(1, queries, keys, 2, 1, 8, 6), {.mask = mask});
}

TEST_CASE("attention is its definition for every head size", "[attention]") {
  const int64_t channels = GENERATE(1, 3, 16, 32, 40, 64, 80, 96, 128, 192, 256);
  CAPTURE(channels);
  check_case(operands(1, 70, 70, 1, 1, channels, channels), {});
  check_case(operands(1, 2, 70, 1, 1, channels, 17), {});
}

TEST_CASE("heads share key heads in groups of any size", "[attention]") {
  const auto [heads, key_heads] =
      GENERATE(table<int64_t, int64_t>({{1, 1}, {8, 1}, {8, 2}, {14, 2}, {7, 7}, {8, 4}, {70, 1}}));
  CAPTURE(heads, key_heads);
  check_case(operands(2, 33, 40, heads, key_heads, 8, 8), {});
  check_case(operands(2, 1, 40, heads, key_heads, 8, 8), {});
}

TEST_CASE("sequences may begin and end where they like, and rows without keys give nothing", "[attention]") {
  const Mask mask = GENERATE(Mask::full(), Mask::causal(), Mask::window(7), Mask::blocks(16));
  const int64_t queries = GENERATE(1, 3, 90);
  CAPTURE(static_cast<int>(mask.kind), queries);
  const AttentionOptions options{
      .mask = mask, .first_key = counts({0, 5, 90, 100, 60}), .end_key = counts({100, 90, 90, 100, 50})};
  check_case(operands(5, queries, 100, 2, 1, 8, 8), options);
  // What lies outside is never touched: a cache may hold anything there.
  Operands in = operands(5, queries, 100, 2, 1, 8, 8);
  const auto outputs = [&] { return attention_with_sums(in.q, in.k, in.v, options); };
  const AttentionResult before = outputs();
  for (const Tensor& x : {in.k, in.v}) {
    slice(slice(x, 0, 1, 2), 1, 0, 5).fill(std::nan(""));
    slice(slice(x, 0, 1, 2), 1, 90, 100).fill(std::nan(""));
    slice(x, 0, 2, 3).fill(std::nan(""));
  }
  const AttentionResult after = outputs();
  check_identical(after.output, before.output);
  check_identical(after.log_sum_exp, before.log_sum_exp);
  CHECK(slice(after.output, 0, 2, 3).to_vector<float>() == std::vector<float>(static_cast<size_t>(queries) * 16));
  CHECK(after.log_sum_exp.to_vector<double>()[static_cast<size_t>(2 * 2 * queries)] == -kInfinity);
}

TEST_CASE("dropout loses the weights that its contract names", "[attention]") {
  const int64_t queries = GENERATE(1, 75);
  Generator generator(77);
  check_case(operands(2, queries, 75, 4, 2, 8, 8), {.mask = Mask::causal(), .dropout = 0.4, .generator = &generator});
  check_case(operands(2, queries, 75, 1, 1, 8, 8), {.mask = Mask::window(30), .dropout = 0.1, .generator = &generator});
  const Operands in = operands(1, queries, 75, 1, 1, 8, 8);
  const auto lost = attention(in.q, in.k, in.v, {.dropout = 1, .generator = &generator}).to_vector<float>();
  CHECK(std::count(lost.begin(), lost.end(), 0.0f) == static_cast<int64_t>(lost.size()));
  CHECK(generator.offset() == static_cast<uint64_t>(queries * 76));
}

TEST_CASE("logits of size 1e4 give a hard choice, equal ones an average", "[attention]") {
  const int64_t queries = GENERATE(1, 90);
  const Operands in = operands(1, queries, 90, 1, 1, 4, 3);
  check_case({Tensor::full(in.q.shape(), -50), Tensor::full(in.k.shape(), 50), in.v}, {}, 5e3);
  Tensor sharp = Tensor::zeros(in.k.shape());
  for (int64_t key = 0; key < 90; ++key) sharp.data<float>()[4 * key] = key % 2 ? 100.0f : -100.0f;
  check_case({Tensor::full(in.q.shape(), 100), sharp, in.v}, {.mask = Mask::causal(), .scale = 1}, 1e4);
  const Tensor average = attention(Tensor::full(in.q.shape(), -50), Tensor::full(in.k.shape(), 50),
                                   Tensor::full(in.v.shape(), 3), {.mask = Mask::full()});
  check_close(average, Tensor::full(in.q.shape().with(3, 3), 3), 2e-6);
}

TEST_CASE("logits too large for an exact log-sum still have finite gradients", "[attention]") {
  for (const double size : {1e4, 1e5, 1e9}) {
    CAPTURE(size);
    Operands in = operands(2, 70, 70, 2, 2, 16, 16);
    in.q = in.q * size;
    in.k = in.k * size;
    const AttentionTwin found = run(in, {}, Tensor::ones({2, 70, 2, 16}), {});
    for (const Tensor& gradient : {found.q_gradient, found.k_gradient, found.v_gradient}) {
      for (const double value : gradient.to_vector<double>()) REQUIRE(std::isfinite(value));
    }
  }
}

TEST_CASE("an infinite logit takes the whole weight", "[attention]") {
  for (const int64_t queries : {1, 90}) {
    Operands in = operands(1, queries, 90, 1, 1, 1, 3);
    in.q.fill(1);
    in.k.data<float>()[40] = static_cast<float>(kInfinity);
    const Tensor y = attention(in.q, in.k, in.v, {.mask = Mask::full()});
    for (int64_t i = 0; i < queries; ++i)
      check_identical(select(select(y, 1, i), 1, 0), select(select(in.v, 1, 40), 1, 0));
  }
}

TEST_CASE("a step of decoding gives the row that the whole sequence gave", "[attention]") {
  const Mask mask = GENERATE(Mask::causal(), Mask::window(50), Mask::blocks(32));
  const Operands in = operands(2, 1100, 1100, 4, 2, 16, 16);
  const AttentionResult whole = attention_with_sums(in.q, in.k, in.v, {.mask = mask});
  // A cache with room for more, filled up to each of these positions, across the edges of tiles and splits.
  for (const int64_t time : {0, 1, 63, 64, 127, 128, 511, 512, 513, 1023, 1024, 1099}) {
    CAPTURE(time);
    const auto end = static_cast<int32_t>(time + 1);
    const AttentionResult step =
        attention_with_sums(slice(in.q, 1, time, time + 1), in.k, in.v, {.mask = mask, .end_key = counts({end, end})});
    check_close(step.output, slice(whole.output, 1, time, time + 1), 0, 1e-6);
    check_close(step.log_sum_exp, slice(whole.log_sum_exp, 2, time, time + 1), 1e-6, 1e-6);
  }
}

TEST_CASE("strided operands are read in place, and give what contiguous ones give", "[attention]") {
  const Operands in = operands(2, 70, 70, 3, 3, 8, 8);
  const Tensor packed = concat({in.q, in.k, in.v}, 3);
  const AttentionResult expected = attention_with_sums(in.q, in.k, in.v);
  check_identical(attention(slice(packed, 3, 0, 8), slice(packed, 3, 8, 16), slice(packed, 3, 16, 24)),
                  expected.output);
  const auto by_head = [](const Tensor& x) { return transpose(contiguous(transpose(x, 1, 2)), 1, 2); };
  check_identical(attention(by_head(in.q), by_head(in.k), by_head(in.v)), expected.output);
}

TEST_CASE("attention of a packed projection is that of its rotated parts", "[attention]") {
  const bool rotates = GENERATE(false, true);
  const Tensor projection = operands(2, 70, 70, 8, 8, 8, 8).q;
  const Tensor packed = reshape(projection, {2, 70, 64});
  const Tensor table = rotary_table(rotary_frequencies(8), 80);
  const RotaryPositions at{.offset = 5};
  const Tensor dy = operands(2, 70, 70, 4, 4, 8, 8, DType::f32, 2).q;
  const auto gradient = [&](auto run) {
    Tensor leaf = packed.detach().set_requires_grad();
    Tape tape;
    const Tensor y = run(leaf);
    tape.backward(y, reshape(dy, y.shape()));
    return std::pair(y.detach(), leaf.grad());
  };
  const auto [y, dx] = gradient([&](const Tensor& x) {
    const AttentionRotary rotary{table, table, RotaryPairs::halves, at};
    return packed_attention(x, 4, 2, {}, rotates ? rotary : AttentionRotary{});
  });
  const auto [expected, expected_gradient] = gradient([&](const Tensor& x) {
    const Tensor heads = reshape(x, {2, 70, 8, 8});
    Tensor q = slice(heads, 2, 0, 4), k = slice(heads, 2, 4, 6);
    if (rotates) {
      q = rotary(q, table, RotaryPairs::halves, at);
      k = rotary(k, table, RotaryPairs::halves, at);
    }
    return reshape(attention(q, k, slice(heads, 2, 6, 8)), {2, 70, 32});
  });
  check_identical(y, expected);
  check_identical(dx, expected_gradient);
}

TEST_CASE("attention and its gradients have the same bits every time", "[attention]") {
  const Operands in = operands(1, 300, 300, 4, 1, 16, 16);
  const Tensor dy = operands(1, 300, 300, 4, 1, 16, 16, DType::f32, 2).q;
  const AttentionTwin first = run(in, {}, dy, {});
  for (int repeat = 0; repeat < 5; ++repeat) {
    const AttentionTwin again = run(in, {}, dy, {});
    check_identical(again.output, first.output);
    check_identical(again.q_gradient, first.q_gradient);
    check_identical(again.k_gradient, first.k_gradient);
    check_identical(again.v_gradient, first.v_gradient);
  }
}

TEST_CASE("65,536 positions stay finite, in memory linear in time", "[attention]") {
  const auto peak = [](int64_t time) {
    const Operands in = operands(1, time, time, 1, 1, 16, 16);
    reset_peak_memory();
    const size_t before = memory_stats().allocated;
    const AttentionTwin result = run(in, {.mask = Mask::window(100)}, in.q, {});
    const size_t bytes = memory_stats().peak_allocated - before;
    for (const Tensor& x : {result.output, result.q_gradient, result.k_gradient, result.v_gradient}) {
      bool finite = true;
      for (const float value : x.to_vector<float>()) finite = finite && std::isfinite(value);
      CHECK(finite);
    }
    return static_cast<double>(bytes);
  };
  const double half = peak(32768), whole = peak(65536);
  CHECK(whole < 2.2 * half);
  CHECK(whole < 65536.0 * 65536 * sizeof(float) / 100);
}

TEST_CASE("attention without batch, queries, heads or channels", "[attention]") {
  for (const auto& in : {operands(0, 3, 4, 2, 1, 3, 3), operands(2, 0, 4, 2, 1, 3, 3), operands(2, 3, 4, 0, 1, 3, 3),
                         operands(2, 3, 4, 2, 1, 3, 0)}) {
    const AttentionTwin result = run(in, {}, Tensor::zeros(in.q.shape().with(3, in.v.size(3))), {});
    CHECK(result.output.shape() == in.q.shape().with(3, in.v.size(3)));
    CHECK(result.k_gradient.shape() == in.k.shape());
  }
  check_case(operands(1, 3, 4, 2, 1, 0, 2), {.scale = 1});
}

TEST_CASE("gradients only where they are wanted", "[attention]") {
  const Operands in = operands(1, 20, 20, 2, 2, 4, 4);
  const Tensor dy = operands(1, 20, 20, 2, 2, 4, 4, DType::f32, 2).q;
  const AttentionTwin all = run(in, {}, dy, {});
  const Tensor v = in.v.detach().set_requires_grad();
  Tape tape;
  tape.backward(attention(in.q, in.k, v), dy);
  check_identical(v.grad(), all.v_gradient);
  CHECK_FALSE(in.q.grad().defined());
}

TEST_CASE("attention says what it cannot take", "[attention]") {
  const Operands in = operands(2, 3, 4, 6, 3, 8, 8);
  const auto says = [](const auto& call, const std::string& text) {
    CHECK_THROWS_WITH(call(), ContainsSubstring(text));
  };
  says([&] { attention(select(in.q, 0, 0), in.k, in.v); },
       "wanted floating-point numbers [batch, time, head, channel]");
  says([&] { attention(in.q, in.k.to(DType::f64), in.v); }, "attention: ");
  says([&] { attention(in.q, slice(in.k, 3, 0, 4), in.v); }, "attention: k is");
  says([&] { attention(in.q, in.k, slice(in.v, 1, 0, 3)); }, "attention: v is");
  says([&] { attention(slice(in.q, 2, 0, 4), in.k, in.v); }, "q has 4 heads and k has 3");
  says([&] { attention(in.q, in.k, in.v, {.mask = Mask::window(0)}); }, "wanted at least 1");
  says([&] { attention(in.q, in.k, in.v, {.first_key = Tensor::zeros({2}, DType::i64)}); }, "wanted i32");
  says([&] { attention(in.q, in.k, in.v, {.end_key = counts({1})}); }, "end_key");
  says([&] { attention(in.q, in.k, in.v, {.dropout = 0.1}); }, "give a generator");
  says([&] { packed_attention(Tensor::zeros({2, 3, 15}), 2, 1, {}); }, "(2 + 2 * 1) * channel");
}

}  // namespace monoid

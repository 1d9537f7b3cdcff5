#include "monoid/ops/scan.h"

#include <functional>

#include "monoid/tests/ops/scan_oracle.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

using namespace monoid;
using namespace monoid::test;

namespace {

using AffineScan = ScanResult (*)(const Tensor&, const Tensor&, const Tensor&, Direction);

struct Case {
  int64_t batch, time, channel;
};

// 1, the sizes around 64 and a prime one, narrow, odd and wide rows; the last two cut time into chunks.
const std::vector<Case> kCases = {{2, 1, 3},    {1, 2, 33},   {3, 63, 1},   {2, 64, 31},   {1, 65, 1000},
                                  {2, 127, 33}, {1, 1000, 3}, {2, 5, 4100}, {1, 1024, 33}, {1, 2500, 7}};

void for_each_case(const std::function<void(const Case&, Direction, bool)>& body) {
  for (const Case& size : kCases) {
    for (const Direction direction : {Direction::forward, Direction::reverse}) {
      for (const bool with_state : {false, true}) {
        CAPTURE(size.batch, size.time, size.channel, direction == Direction::reverse, with_state);
        body(size, direction, with_state);
      }
    }
  }
}

int64_t last_of(int64_t time, Direction direction) { return direction == Direction::forward ? time - 1 : 0; }

// log(cumsum) form of Heinsen, in f64: A*_t + log(sum_s exp(log_b_s - A*_s)).
Grid heinsen(const Grid& log_a, const Grid& log_b) {
  Grid states(log_a.batch, log_a.time, log_a.channel);
  for (int64_t b = 0; b < log_a.batch; ++b) {
    for (int64_t c = 0; c < log_a.channel; ++c) {
      double total = 0, sum = -kInf;
      for (int64_t t = 0; t < log_a.time; ++t) {
        total += log_a.at(b, t, c);
        sum = exact_logaddexp(sum, log_b.at(b, t, c) - total);
        states.at(b, t, c) = total + sum;
      }
    }
  }
  return states;
}

}  // namespace

TEST_CASE("linear_scan follows its recurrence at every size, direction and state") {
  Generator generator(1);
  for_each_case([&](const Case& size, Direction direction, bool with_state) {
    const Shape shape{size.batch, size.time, size.channel};
    const Tensor a = random_uniform(shape, generator, -1, 1), b = random_normal(shape, generator);
    const Tensor initial = with_state ? random_normal({size.batch, size.channel}, generator) : Tensor();
    const ScanResult result = linear_scan(a, b, initial, direction);
    const Tensor expected = linear_oracle(a, b, initial, direction).tensor(DType::f32);
    check_close(result.states, expected, 1e-5, 2e-6);
    check_identical(result.final, step_of(result.states, last_of(size.time, direction)));
  });
}

TEST_CASE("log_scan follows its recurrence, with a fifth of its inputs at -inf") {
  Generator generator(2);
  const auto draw = [&](const Shape& shape) {
    Tensor x = random_normal(shape, generator, 0, 2);
    float* values = x.data<float>();
    for (int64_t i = 0; i < x.elements(); ++i) values[i] = generator.below(5) == 0 ? -INFINITY : values[i];
    return x;
  };
  for_each_case([&](const Case& size, Direction direction, bool with_state) {
    const Shape shape{size.batch, size.time, size.channel};
    const Tensor log_a = draw(shape), log_b = draw(shape);
    const Tensor initial = with_state ? draw({size.batch, size.channel}) : Tensor();
    const ScanResult result = log_scan(log_a, log_b, initial, direction);
    check_close(result.states, log_oracle(log_a, log_b, initial, direction).tensor(DType::f32), 2e-6, 5e-6);
    check_identical(result.final, step_of(result.states, last_of(size.time, direction)));
  });
}

TEST_CASE("log_scan is Heinsen's cumulative form, in f64 where that form has digits left") {
  Generator generator(3);
  const Tensor log_a = random_uniform({2, 300, 5}, generator, -1, 0, DType::f64);
  const Tensor log_b = random_normal({2, 300, 5}, generator, 0, 1, DType::f64);
  check_close(log_scan(log_a, log_b).states, heinsen(Grid(log_a), Grid(log_b)).tensor(), 1e-11, 1e-11);
}

TEST_CASE("scans of nothing have nothing, and without steps the final state is the initial one") {
  for (const AffineScan scan : {AffineScan(linear_scan), AffineScan(log_scan)}) {
    for (const Shape& shape : {Shape{0, 4, 3}, Shape{2, 4, 0}, Shape{0, 2000, 3}, Shape{1, 2000, 0}}) {
      const ScanResult result = scan(Tensor::ones(shape), Tensor::ones(shape), {}, Direction::forward);
      CHECK(result.states.shape() == shape);
      CHECK(result.final.shape() == Shape{shape[0], shape[2]});
    }
    const Tensor initial = Tensor::full({2, 3}, 1.5), none = Tensor::ones({2, 0, 3});
    check_identical(scan(none, none, initial, Direction::reverse).final, initial);
  }
  const Tensor none = Tensor::ones({2, 0, 3});
  check_identical(linear_scan(none, none).final, Tensor::zeros({2, 3}));
  check_identical(log_scan(none, none).final, Tensor::full({2, 3}, -kInf));
}

TEST_CASE("whole sequences, single steps and chunks with carried state give the same bits") {
  Generator generator(4);
  for (const AffineScan scan : {AffineScan(linear_scan), AffineScan(log_scan)}) {
    const Tensor a = random_uniform({3, 65, 33}, generator, -1, 0), b = random_normal({3, 65, 33}, generator);
    const ScanResult whole = scan(a, b, {}, Direction::forward);
    for (const int64_t chunk : {1, 7, 64}) {
      Tensor state;
      for (int64_t begin = 0; begin < 65; begin += chunk) {
        const int64_t end = std::min<int64_t>(65, begin + chunk);
        const ScanResult part = scan(stretch(a, begin, end), stretch(b, begin, end), state, Direction::forward);
        check_identical(part.states, stretch(whole.states, begin, end));
        state = part.final;
      }
      check_identical(state, whole.final);
    }
  }
}

TEST_CASE("cutting time into chunks changes states and gradients by rounding only") {
  // One row is cut; four equal rows are not.
  Generator generator(5);
  constexpr int64_t kTime = 3000, kChannel = 5;
  for (const AffineScan scan : {AffineScan(linear_scan), AffineScan(log_scan)}) {
    for (const Direction direction : {Direction::forward, Direction::reverse}) {
      const Tensor a = random_uniform({1, kTime, kChannel}, generator, -0.05, scan == AffineScan(linear_scan) ? 1 : 0);
      const Tensor b = random_normal({1, kTime, kChannel}, generator),
                   initial = random_normal({1, kChannel}, generator);
      const Tensor cotangent = random_normal({1, kTime, kChannel}, generator);
      const Tensor final_cotangent = random_normal({1, kChannel}, generator);
      const auto four = [](const Tensor& x) {
        Tensor copies = Tensor::empty(x.shape().with(0, 4));
        copies.copy_from(x.as_strided(copies.shape(), x.strides().with(0, 0), 0));
        return copies;
      };
      const auto first = [](const Tensor& x) { return x.as_strided(x.shape().with(0, 1), x.strides(), 0).clone(); };
      const auto run = [&](const Tensors& in) { return scan(in[0], in[1], in[2], direction); };
      const ScanResult cut = scan(a, b, initial, direction), serial = scan(four(a), four(b), four(initial), direction);
      check_close_in_norm(cut.states, first(serial.states), 5e-6);
      check_close_in_norm(cut.final, first(serial.final), 5e-6);
      const Tensors cut_gradients = gradients_of({a, b, initial}, {cotangent, final_cotangent}, run);
      const Tensors gradients =
          gradients_of({four(a), four(b), four(initial)}, {four(cotangent), four(final_cotangent)}, run);
      for (size_t i = 0; i < 3; ++i) check_close_in_norm(cut_gradients[i], first(gradients[i]), 5e-6);
    }
  }
}

TEST_CASE("results do not depend on the number of threads") {
  Generator generator(6);
  for (const Shape& shape : {Shape{1, 2000, 40}, Shape{5, 300, 100}, Shape{1, 40, 3000}}) {
    const Tensor a = random_uniform(shape, generator, -1, 0), b = random_normal(shape, generator);
    const Tensor cotangent = random_normal(shape, generator);
    for (const AffineScan scan : {AffineScan(linear_scan), AffineScan(log_scan)}) {
      const auto run = [&](const Tensors& in) { return scan(in[0], in[1], {}, Direction::forward); };
      const auto all = [&](int count) {
        const WithThreads limit(count);
        Tensors results = gradients_of({a, b}, {cotangent, {}}, run);
        results.push_back(run({a, b}).states);
        return results;
      };
      const Tensors one = all(1);
      for (const int count : {2, 5}) {
        const Tensors many = all(count);
        for (size_t i = 0; i < one.size(); ++i) check_identical(many[i], one[i]);
      }
    }
  }
}

TEST_CASE("linear_scan: zero decay forgets, unit decay sums, an overflow stays in its channel") {
  const Tensor b = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {1, 3, 2});
  check_identical(linear_scan(Tensor::zeros({1, 3, 2}), b, Tensor::full({1, 2}, 9)).states, b);
  check_identical(linear_scan(Tensor::ones({1, 3, 2}), b).final, Tensor::from(std::vector<float>{9, 12}, {1, 2}));
  Tensor a = Tensor::ones({1, 400, 33}), input = Tensor::ones({1, 400, 33});
  for (int64_t t = 0; t < 400; ++t) a.data<float>()[t * 33 + 7] = 2;
  const std::vector<float> last = linear_scan(a, input).final.to_vector<float>();
  for (size_t c = 0; c < last.size(); ++c) CHECK(last[c] == (c == 7 ? INFINITY : 400));
}

TEST_CASE("without an initial state the first gate is not used") {
  Tensor a = Tensor::full({1, 2, 1}, 0.5), b = Tensor::ones({1, 2, 1});
  a.data<float>()[0] = NAN;
  check_identical(linear_scan(a, b).final, Tensor::full({1, 1}, 1.5));
  CHECK(log_scan(a, b).final.item() == Approx(std::log(std::exp(1.5) + std::exp(1))).epsilon(1e-6));
}

TEST_CASE("log_scan: gradients at -inf are 0 and never NaN, and the others are those of the sum of exponentials") {
  const double none = -kInf;
  Tensor log_a = Tensor::from(std::vector<double>{-0.5, none, -0.25, -1, none, none}, {1, 6, 1});
  Tensor log_b = Tensor::from(std::vector<double>{none, 0.5, none, 2, none, none}, {1, 6, 1});
  const auto run = [](const Tensors& in) { return log_scan(in[0], in[1], in[2]); };
  for (const double start : {none, 0.75}) {
    const Tensor initial = Tensor::full({1, 1}, start, DType::f64);
    const ScanResult result = run({log_a, log_b, initial});
    check_close(result.states, log_oracle(log_a, log_b, initial).tensor(), 1e-15);
    const Tensors gradients = gradients_of(
        {log_a, log_b, initial}, {Tensor::ones({1, 6, 1}, DType::f64), Tensor::ones({1, 1}, DType::f64)}, run);
    // State 0 comes from the initial one alone, 1 starts anew, 2 follows it, 3 mixes; 4 and 5 are nothing.
    const double share = 1 / (1 + std::exp(2 - (0.5 - 0.25 - 1)));
    const double from_start = start == none ? 0 : 1;
    check_close(gradients[0], Tensor::from(std::vector<double>{from_start, 0, 1 + share, share, 0, 0}, {1, 6, 1}),
                1e-14);
    check_close(gradients[1], Tensor::from(std::vector<double>{0, 2 + share, 0, 1 - share, 0, 0}, {1, 6, 1}), 1e-14);
    check_close(gradients[2], Tensor::full({1, 1}, from_start, DType::f64), 1e-14);
  }
}

TEST_CASE("log_scan gradients in f32 stay accurate over 8192 steps") {
  Generator generator(8);
  constexpr int64_t kTime = 8192;
  const Tensor k = random_normal({1, kTime, 4}, generator, 0, 1, DType::f64);
  Tensor log_a = k.clone(), log_b = random_normal({1, kTime, 4}, generator, 0, 1, DType::f64);
  for (int64_t i = 0; i < k.elements(); ++i) log_a.data<double>()[i] = -softplus_of(k.data<double>()[i]);
  log_a = log_a.to(DType::f32), log_b = log_b.to(DType::f32);
  const Tensor cotangent = random_normal({1, kTime, 4}, generator);
  const auto run = [](const Tensors& in) { return log_scan(in[0], in[1]); };
  const Tensors single = gradients_of({log_a, log_b}, {cotangent, {}}, run);
  const Tensors twice = gradients_of({log_a.to(DType::f64), log_b.to(DType::f64)}, {cotangent.to(DType::f64), {}}, run);
  for (size_t i = 0; i < 2; ++i) check_close_in_norm(single[i], twice[i].to(DType::f32), 2e-6);
}

TEST_CASE("strided sequences, broadcast states and strided cotangents are read in place") {
  Generator generator(9);
  const Tensor wide = random_uniform({6, 20, 50}, generator, -1, 0), packed = random_normal({3, 20, 34}, generator);
  const Tensor a = wide.as_strided({3, 20, 17}, {2000, 50, 1}, 11),
               b = packed.as_strided({3, 20, 17}, {680, 34, 1}, 17);
  const Tensor row = random_normal({17}, generator), initial = row.as_strided({3, 17}, {0, 1}, 0);
  const Tensor transposed = random_normal({17, 20, 3}, generator).as_strided({3, 20, 17}, {1, 3, 60}, 0);
  const Tensor constant = Tensor::full({1}, 0.5).as_strided({3, 17}, {0, 0}, 0);
  for (const AffineScan scan : {AffineScan(linear_scan), AffineScan(log_scan)}) {
    const auto run = [&](const Tensors& in) { return scan(in[0], in[1], in[2], Direction::reverse); };
    const ScanResult viewed = run({a, b, initial}), dense = run({a.clone(), b.clone(), initial.clone()});
    check_identical(viewed.states, dense.states);
    check_identical(viewed.final, dense.final);
    const Tensors from_views = gradients_of({a, b, initial}, {transposed, constant}, run);
    const Tensors from_copies =
        gradients_of({a.clone(), b.clone(), initial.clone()}, {transposed.clone(), constant.clone()}, run);
    for (size_t i = 0; i < 3; ++i) check_identical(from_views[i], from_copies[i]);
  }
}

TEST_CASE("scans refuse what they cannot read, by name") {
  const Tensor x = Tensor::ones({2, 4, 3});
  CHECK_THROWS_WITH(linear_scan({}, x), ContainsSubstring("linear_scan: a"));
  CHECK_THROWS_WITH(linear_scan(x, Tensor::ones({2, 4, 2})), ContainsSubstring("b is f32[2, 4, 2]"));
  CHECK_THROWS_WITH(linear_scan(Tensor::ones({2, 4}), x), ContainsSubstring("wanted [batch, time, channel]"));
  CHECK_THROWS_WITH(linear_scan(x, x.to(DType::f64)), ContainsSubstring("linear_scan"));
  CHECK_THROWS_WITH(log_scan(x, x, Tensor::ones({3, 2})), ContainsSubstring("initial state"));
  CHECK_THROWS_WITH(log_scan(x.to(DType::bf16), x.to(DType::bf16)), ContainsSubstring("cast() it first"));
  CHECK_THROWS_WITH(linear_scan(x.as_strided({2, 4, 3}, {12, 1, 4}, 0), x), ContainsSubstring("adjacent channels"));
  CHECK_THROWS_WITH(linear_scan(x, x.as_strided({2, 4, 3}, {12, 0, 1}, 0)), ContainsSubstring("positive strides"));
  CHECK_THROWS_WITH(log_scan(x.as_strided({2, 4, 3}, {12, -3, 1}, 9), x), ContainsSubstring("positive strides"));
}

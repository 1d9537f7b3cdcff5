#include "monoid/ops/complex_scan.h"

#include <complex>

#include "monoid/ops/elementwise.h"
#include "monoid/tests/ops/scan_oracle.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

using namespace monoid;
using namespace monoid::test;

namespace {

using Number = std::complex<double>;

// The recurrence on std::complex, index by index.
Tensor oracle(const Tensor& a, const Tensor& b, const Tensor& initial, Direction direction) {
  const int64_t batch = a.size(0), time = a.size(1), channel = a.size(2);
  const auto read = [](const Tensor& x) {
    const std::vector<double> parts = x.to_vector<double>();
    std::vector<Number> numbers;
    for (size_t i = 0; i < parts.size(); i += 2) numbers.emplace_back(parts[i], parts[i + 1]);
    return numbers;
  };
  const std::vector<Number> as = read(a), bs = read(b), start = initial.defined() ? read(initial) : as;
  std::vector<double> states(2 * as.size());
  for (int64_t row = 0; row < batch * channel; ++row) {
    Number h = initial.defined() ? start[static_cast<size_t>(row)] : 0;
    for (int64_t i = 0; i < time; ++i) {
      const int64_t t = direction == Direction::forward ? i : time - 1 - i;
      const auto at = static_cast<size_t>((row / channel * time + t) * channel + row % channel);
      h = as[at] * h + bs[at];
      states[2 * at] = h.real(), states[2 * at + 1] = h.imag();
    }
  }
  return Tensor::from(states, a.shape());
}

// Pairs inside the unit circle, of random angle.
Tensor decays(const Shape& shape, Generator& generator, DType dtype = DType::f32) {
  return random_uniform(shape, generator, -0.7, 0.7, dtype);
}

}  // namespace

TEST_CASE("complex_scan follows its recurrence at every size, direction and state") {
  Generator generator(1);
  for (const auto& [batch, time, channel] : std::vector<std::array<int64_t, 3>>{
           {2, 1, 3}, {1, 2, 33}, {3, 63, 1}, {2, 64, 31}, {1, 65, 1000}, {2, 5, 4100}, {1, 1024, 33}, {1, 2500, 7}}) {
    for (const Direction direction : {Direction::forward, Direction::reverse}) {
      for (const bool with_state : {false, true}) {
        CAPTURE(batch, time, channel, direction == Direction::reverse, with_state);
        const Shape shape{batch, time, channel, 2};
        const Tensor a = decays(shape, generator), b = random_normal(shape, generator);
        const Tensor initial = with_state ? random_normal({batch, channel, 2}, generator) : Tensor();
        const ScanResult result = complex_scan(a, b, initial, direction);
        check_close(result.states, oracle(a, b, initial, direction).to(DType::f32), 1e-5, 4e-6);
        const int64_t last = direction == Direction::forward ? time - 1 : 0;
        check_identical(
            result.final,
            result.states.as_strided({batch, channel, 2}, {time * channel * 2, 2, 1}, last * channel * 2).clone());
      }
    }
  }
}

TEST_CASE("complex_scan of numbers without imaginary parts is linear_scan") {
  Generator generator(2);
  const Tensor a = decays({2, 70, 5}, generator), b = random_normal({2, 70, 5}, generator);
  const auto with_zeros = [](const Tensor& x) {
    Tensor pairs = Tensor::zeros(Shape{x.size(0), x.size(1), x.size(2), 2});
    pairs.as_strided(x.shape(), {x.size(1) * x.size(2) * 2, x.size(2) * 2, 2}, 0).copy_from(x);
    return pairs;
  };
  check_close(complex_scan(with_zeros(a), with_zeros(b)).states, with_zeros(linear_scan(a, b).states), 1e-6, 1e-7);
}

TEST_CASE("complex_scan in pieces gives the bits of the whole, and reads views in place") {
  Generator generator(3);
  const Tensor wide = decays({3, 40, 50}, generator), b = random_normal({3, 40, 7, 2}, generator);
  const Tensor a = wide.as_strided({3, 40, 7, 2}, {2000, 50, 2, 1}, 5);
  const ScanResult whole = complex_scan(a, b), copied = complex_scan(a.clone(), b);
  check_identical(whole.states, copied.states);
  Tensor state;
  for (int64_t t = 0; t < 40; t += 8) {
    const auto piece = [&](const Tensor& x) {
      return x.as_strided({3, 8, 7, 2}, x.strides(), x.offset() + t * x.strides()[1]);
    };
    const ScanResult part = complex_scan(piece(a), piece(b), state);
    check_identical(part.states, piece(whole.states).clone());
    state = part.final;
  }
  check_identical(state, whole.final);
  const auto run = [](const Tensors& in) { return complex_scan(in[0], in[1], in[2], Direction::reverse); };
  const Tensor initial = random_normal({7, 2}, generator).as_strided({3, 7, 2}, {0, 2, 1}, 0);
  const Tensor transposed = random_normal({2, 7, 40, 3}, generator).as_strided({3, 40, 7, 2}, {1, 3, 120, 840}, 0);
  const Tensors from_views = gradients_of({a, b, initial}, {transposed, initial}, run);
  const Tensors from_copies = gradients_of({a.clone(), b, initial.clone()}, {transposed.clone(), initial.clone()}, run);
  for (size_t i = 0; i < 3; ++i) check_identical(from_views[i], from_copies[i]);
}

TEST_CASE("cutting the time of complex_scan changes results by rounding only, threads do not at all") {
  Generator generator(4);
  const Tensor a = decays({1, 3000, 5, 2}, generator), b = random_normal({1, 3000, 5, 2}, generator);
  const Tensor cotangent = random_normal({1, 3000, 5, 2}, generator);
  const auto four = [](const Tensor& x) {
    return x.as_strided(x.shape().with(0, 4), x.strides().with(0, 0), 0).clone();
  };
  const auto first = [](const Tensor& x) { return x.as_strided(x.shape().with(0, 1), x.strides(), 0).clone(); };
  const auto run = [](const Tensors& in) { return complex_scan(in[0], in[1]); };
  const Tensors cut = gradients_of({a, b}, {cotangent, {}}, run),
                serial = gradients_of({four(a), four(b)}, {four(cotangent), {}}, run);
  for (size_t i = 0; i < 2; ++i) check_close_in_norm(cut[i], first(serial[i]), 2e-6);
  check_close_in_norm(complex_scan(a, b).states, first(complex_scan(four(a), four(b)).states), 2e-6);
  const WithThreads one(1);
  const Tensors alone = gradients_of({a, b}, {cotangent, {}}, run);
  for (size_t i = 0; i < 2; ++i) check_identical(alone[i], cut[i]);
}

TEST_CASE("complex_scan of nothing, without a first decay, and its errors") {
  for (const Shape& shape : {Shape{0, 4, 3, 2}, Shape{2, 4, 0, 2}, Shape{1, 2000, 0, 2}}) {
    const ScanResult result = complex_scan(Tensor::ones(shape), Tensor::ones(shape));
    CHECK(result.states.shape() == shape);
    CHECK(result.final.shape() == Shape{shape[0], shape[2], 2});
  }
  const Tensor none = Tensor::ones({2, 0, 3, 2}), initial = Tensor::full({2, 3, 2}, 1.5);
  check_identical(complex_scan(none, none, initial, Direction::reverse).final, initial);
  check_identical(complex_scan(none, none).final, Tensor::zeros({2, 3, 2}));
  Tensor a = Tensor::full({1, 2, 1, 2}, 0.5);
  a.data<float>()[0] = NAN;
  check_identical(complex_scan(a, Tensor::ones({1, 2, 1, 2})).final, Tensor::from(std::vector<float>{1, 2}, {1, 1, 2}));
  const Tensor x = Tensor::ones({2, 4, 3, 2});
  CHECK_THROWS_WITH(complex_scan(Tensor::ones({2, 4, 6}), x), ContainsSubstring("wanted [batch, time, channel, 2]"));
  CHECK_THROWS_WITH(complex_scan(x, Tensor::ones({2, 4, 3, 3})), ContainsSubstring("b is f32[2, 4, 3, 3]"));
  CHECK_THROWS_WITH(complex_scan(x, x, Tensor::ones({2, 3})), ContainsSubstring("initial state"));
  CHECK_THROWS_WITH(complex_scan(x.as_strided({2, 4, 3, 2}, {24, 6, 1, 3}, 0), x),
                    ContainsSubstring("adjacent channels"));
}

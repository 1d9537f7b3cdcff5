#include "monoid/ops/dropout.h"

#include <cmath>
#include <limits>

#include "monoid/core/parallel.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {

using test::check_identical;

TEST_CASE("dropout keeps what the Philox stream says, scaled", "[dropout]") {
  for (int64_t count : {1, 3, 511, 513, 20011}) {
    Generator generator(99, 40);
    const Tensor x = Tensor::full({count}, 3, DType::f64);
    const Tensor y = dropout(x, 0.25, generator);
    CHECK(generator.offset() == 40 + static_cast<uint64_t>((count + 3) / 4 * 4));
    Tensor expected = Tensor::empty_like(x);
    for (int64_t i = 0; i < count; ++i) {
      const bool kept = uniform_unit(random_bits(99, 40 + static_cast<uint64_t>(i))) >= 0.25f;
      expected.data<double>()[i] = kept ? 3 * (1 / 0.75) : 0;
    }
    check_identical(y, expected);
  }
}

TEST_CASE("dropout's mask depends on neither threads, width, strides nor the shape", "[dropout]") {
  const int before = threads();
  const auto run = [](const Tensor& x) {
    Generator generator(5);
    return dropout(x, 0.4, generator);
  };
  const Tensor x = Tensor::ones({40'000});
  const Tensor once = run(x);
  set_threads(1);
  check_identical(run(x), once);
  set_threads(3);
  check_identical(run(x), once);
  set_threads(before);
  check_identical(run(x.view({400, 100})).view({40'000}), once);
  check_identical(run(Tensor::ones({}).as_strided({40'000}, {0}, 0)), once);
  // Rows of 131 elements start in the middle of a Philox block.
  const Tensor wide = Tensor::ones({305, 140});
  check_identical(run(wide.as_strided({305, 131}, {140, 1}, 0)).view({305 * 131}),
                  once.as_strided({305 * 131}, {1}, 0));
  check_identical(run(x.to(DType::f64)).to(DType::f32), once);
}

TEST_CASE("dropout drops the given share and preserves the mean", "[dropout]") {
  constexpr int64_t kCount = 200'000;
  for (double probability : {0.1, 0.5, 0.9}) {
    Generator generator(1);
    const std::vector<float> y = dropout(Tensor::ones({kCount}), probability, generator).to_vector<float>();
    double sum = 0, dropped = 0, both = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += y[i];
      dropped += y[i] == 0;
      if (i > 0) both += y[i] == 0 && y[i - 1] == 0;
    }
    // Five standard deviations.
    const double deviation = std::sqrt(probability * (1 - probability) / kCount);
    CHECK(std::abs(dropped / kCount - probability) < 5 * deviation);
    CHECK(std::abs(sum / kCount - 1) < 5 * deviation / (1 - probability));
    CHECK(std::abs(both / kCount - probability * probability) < 10 * deviation);
  }
}

TEST_CASE("the gradient of dropout goes through the same mask", "[dropout]") {
  Generator generator(3);
  const Tensor x = Tensor::ones({1000}).set_requires_grad();
  Tape tape;
  const Tensor first = dropout(x, 0.5, generator), second = dropout(x, 0.5, generator);
  tape.backward({first, second}, {Tensor::ones({1000}), Tensor::full({1000}, 4)});
  const auto a = first.to_vector<float>(), b = second.to_vector<float>(), dx = x.grad().to_vector<float>();
  CHECK(a != b);
  for (size_t i = 0; i < a.size(); ++i) {
    if (dx[i] != a[i] + 4 * b[i]) FAIL_CHECK(str("at ", i, ": ", dx[i], " for ", a[i], " and ", b[i]));
  }
}

TEST_CASE("dropout at the ends of its range", "[dropout]") {
  Generator generator(3);
  const Tensor x = Tensor::full({100}, std::numeric_limits<double>::infinity());
  CHECK(dropout(x, 0, generator).raw() == x.raw());
  CHECK(generator.offset() == 0);
  check_identical(dropout(x, 1, generator), Tensor::zeros({100}));
  CHECK(generator.offset() == 100);
  CHECK(dropout(Tensor::empty({0, 4}), 0.5, generator).shape() == Shape{0, 4});
  for (double wrong : {-0.1, 1.1, std::nan("")}) {
    CHECK_THROWS_WITH(dropout(x, wrong, generator), ContainsSubstring("dropout: probability is"));
  }
  CHECK_THROWS_WITH(dropout(Tensor::ones({2}, DType::i64), 0.5, generator), ContainsSubstring("dropout: x is i64[2]"));
}

}  // namespace monoid

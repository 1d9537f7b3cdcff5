#include "monoid/ops/embedding.h"

#include <array>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid::test {
namespace {

Tensor gradient_of(const Tensor& weight, const Tensor& tokens, const Tensor& dy) {
  Tensor leaf = weight.clone().set_requires_grad();
  Tape tape;
  tape.backward(embedding(leaf, tokens), dy);
  return leaf.grad();
}

// The gradient as one loop in f64.
Tensor plain_gradient(const Shape& shape, const Tensor& tokens, const Tensor& dy) {
  Tensor dweight = Tensor::zeros(shape, DType::f64);
  const auto places = tokens.to_vector<int64_t>();
  const auto values = dy.to_vector<double>();
  double* table = dweight.data<double>();
  for (size_t n = 0; n < places.size(); ++n) {
    for (int64_t i = 0; i < shape[1]; ++i) {
      table[places[n] * shape[1] + i] += values[n * static_cast<size_t>(shape[1]) + static_cast<size_t>(i)];
    }
  }
  return dweight;
}

}  // namespace

TEST_CASE("embedding picks rows, for tokens of any shape and integer type", "[embedding]") {
  const Tensor weight = Tensor::from(std::vector<float>{0, 1, 10, 11, 20, 21}, {3, 2});
  const Tensor tokens = Tensor::from(std::vector<int64_t>{2, 0, 0, 1}, {2, 2});
  const Tensor wanted = Tensor::from(std::vector<float>{20, 21, 0, 1, 0, 1, 10, 11}, {2, 2, 2});
  check_identical(embedding(weight, tokens), wanted);
  check_identical(embedding(weight, tokens.to(DType::i32)), wanted);
  check_identical(embedding(weight, transpose(tokens, 0, 1)), contiguous(transpose(wanted, 0, 1)));
  check_identical(embedding(weight, Tensor::scalar(1, DType::i64)), Tensor::from(std::vector<float>{10, 11}, {2}));
  const Tensor wide = pad(weight, 1, 3, 1);
  check_identical(embedding(slice(wide, 1, 3, 5), tokens), wanted);
  CHECK(embedding(weight, Tensor::zeros({0, 3}, DType::i64)).shape() == Shape{0, 3, 2});
  CHECK(embedding(Tensor::zeros({3, 0}), tokens).shape() == Shape{2, 2, 0});
  CHECK(embedding(weight.to(DType::bf16), tokens).dtype() == DType::bf16);
}

TEST_CASE("embedding gradients add up the rows of each token, however skewed", "[embedding]") {
  Generator generator(3);
  for (const auto& [rows, channels, batch] :
       {std::array<int64_t, 3>{1, 1, 1}, {1, 3, 1000}, {65, 33, 4099}, {7, 1, 129}, {1000, 17, 64}, {3, 1030, 200}}) {
    CAPTURE(rows, channels, batch);
    const Tensor weight = Tensor::zeros({rows, channels});
    // Squared: the low tokens are much more frequent.
    Tensor tokens = random_integers({batch}, generator, rows);
    for (int64_t n = 0; n < batch; ++n) tokens.data<int64_t>()[n] = tokens.data<int64_t>()[n] * generator.below(2);
    const Tensor dy = random_normal({batch, channels}, generator);
    check_close_in_norm(gradient_of(weight, tokens, dy).to(DType::f64), plain_gradient(weight.shape(), tokens, dy),
                        1e-6);
  }
}

TEST_CASE("embedding gradients have the same bits for any number of threads", "[embedding]") {
  Generator generator(4);
  const Tensor weight = Tensor::zeros({65, 48});
  const Tensor tokens = random_integers({16, 512}, generator, 65), dy = random_normal({16, 512, 48}, generator);
  const int before = threads();
  set_threads(1);
  const Tensor one = gradient_of(weight, tokens, dy);
  for (int count : {2, 3, 7}) {
    set_threads(count);
    check_identical(gradient_of(weight, tokens, dy), one);
  }
  set_threads(before);
}

TEST_CASE("a token outside the table is an error that names it, its place and the table", "[embedding]") {
  const Tensor weight = Tensor::zeros({65, 4});
  const auto tokens = [](int64_t bad) { return Tensor::from(std::vector<int64_t>{0, 1, 2, 3, bad, 64}, {2, 3}); };
  CHECK_NOTHROW(embedding(weight, tokens(64)));
  CHECK_THROWS_WITH(embedding(weight, tokens(65)), ContainsSubstring("embedding: token 65 at [1, 1] of i64[2, 3]") &&
                                                       ContainsSubstring("f32[65, 4]; wanted 0 to 64"));
  CHECK_THROWS_WITH(embedding(weight, tokens(-1)), ContainsSubstring("token -1 at [1, 1]"));
  CHECK_THROWS_WITH(embedding(weight, Tensor::full({2}, 70, DType::i32)), ContainsSubstring("token 70 at [0]"));
  CHECK_THROWS_WITH(embedding(weight, Tensor::zeros({2})), ContainsSubstring("wants i32 or i64 indices, got f32"));
  CHECK_THROWS_WITH(embedding(Tensor::zeros({65}), tokens(0)), ContainsSubstring("wanted [rows, channel]"));
  CHECK_THROWS_WITH(embedding(weight, Tensor()), ContainsSubstring("embedding: tokens is undefined"));
}

}  // namespace monoid::test

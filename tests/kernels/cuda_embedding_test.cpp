#include "monoid/core/random.h"
#include "monoid/kernels/indexing.h"
#include "monoid/ops/dropout.h"
#include "monoid/ops/embedding.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

using test::check_close_in_norm;
using test::check_identical;
using test::cuda_or_skip;
using test::Guarded;
using test::kCuda;

struct Problem {
  int64_t rows, channels, count;
  bool skewed = false;  // nearly all positions hold one token
};

const Problem kProblems[] = {{1, 1, 1},          {3, 1, 5},         {65, 33, 64},           {65, 384, 63},
                             {256, 512, 4096},   {65, 31, 65537},   {256, 8, 20'000, true}, {257, 40, 3000},
                             {50'257, 16, 5000}, {70'000, 4, 1000}, {4, 1000, 129}};

Tensor tokens_of(const Problem& problem) {
  Generator generator(2);
  Tensor tokens = random_integers({problem.count}, generator, problem.rows);
  for (int64_t n = 0; problem.skewed && n < problem.count; ++n) {
    if (n % 97 != 0) tokens.data<int64_t>()[n] = 7;
  }
  return tokens;
}

Tensor rounded_normal(const Shape& shape, uint64_t seed, DType dtype) {
  Generator generator(seed);
  return random_normal(shape, generator).to(dtype);
}

}  // namespace

TEST_CASE("embedding on CUDA copies the rows of its tokens", "[cuda][embedding]") {
  if (!cuda_or_skip()) return;
  for (const Problem& problem : kProblems) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const int64_t skipped : {0, 1}) {
        CAPTURE(problem.rows, problem.channels, problem.count, dtype, skipped);
        const Tensor weight = rounded_normal({problem.rows, problem.channels}, 1, dtype), tokens = tokens_of(problem);
        Guarded result({problem.count, problem.channels}, dtype, skipped);
        kernels::embedding(weight.to(kCuda), tokens.to(kCuda), result.tensor());
        check_identical(result.tensor().to(kCpu), embedding(weight, tokens));
        result.check_intact();
      }
    }
  }
}

TEST_CASE("the gradient of an embedding on CUDA adds the rows of each token", "[cuda][embedding]") {
  if (!cuda_or_skip()) return;
  for (const Problem& problem : kProblems) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(problem.rows, problem.channels, problem.count, dtype);
      const Tensor dy = rounded_normal({problem.count, problem.channels}, 3, dtype), tokens = tokens_of(problem);
      Tensor expected = Tensor::zeros({problem.rows, problem.channels}, DType::f64);
      kernels::embedding_gradient(dy.to(DType::f64), tokens, expected);
      Guarded found({problem.rows, problem.channels}, dtype);
      found.tensor().fill(0);
      const Tensor there = dy.to(kCuda);
      kernels::embedding_gradient(there, tokens.to(DType::i32).to(kCuda), found.tensor());
      check_close_in_norm(found.tensor().to(kCpu).to(DType::f64), expected, dtype == DType::f32 ? 1e-6 : 0x1p-8);
      found.check_intact();
      test::check_repeats([&] {
        Tensor again = Tensor::zeros({problem.rows, problem.channels}, dtype, kCuda);
        kernels::embedding_gradient(there, tokens.to(kCuda), again);
        return std::vector<Tensor>{again.to(kCpu)};
      });
    }
  }
}

TEST_CASE("a token outside the table is an error, where the host next waits", "[cuda][embedding]") {
  if (!cuda_or_skip()) return;
  const Tensor weight = Tensor::ones({5, 8}, DType::f32, kCuda);
  for (const int64_t bad : {-1, 5, 1 << 20}) {
    const Tensor tokens = Tensor::from(std::vector<int64_t>{0, 4, bad, 1}, {4}, kCuda);
    const Tensor result = embedding(weight, tokens);
    CHECK_THROWS_WITH(synchronize(kCuda), ContainsSubstring(str("token ", bad, " at position 2")));
    synchronize(kCuda);  // is reported once
    check_identical(result.to(kCpu).as_strided({2, 8}, {8, 1}, 0).clone(), Tensor::ones({2, 8}));
    Tensor gradient = Tensor::zeros({5, 8}, DType::f32, kCuda);
    kernels::embedding_gradient(Tensor::ones({4, 8}, DType::f32, kCuda), tokens, gradient);
    CHECK(gradient.to_vector<float>()[8] == 1);
  }
}

TEST_CASE("dropout on CUDA draws the numbers of the CPU, from a base on the device too", "[cuda][dropout]") {
  if (!cuda_or_skip()) return;
  for (const int64_t count : {1, 3, 4, 1000, 65'537}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const double probability : {0.1, 0.5, 1.0}) {
        CAPTURE(count, dtype, probability);
        const Tensor x = rounded_normal({count}, 5, dtype);
        Generator here(9, 40), there(9, 40), based(9);
        based.set_base(Tensor::full({}, 40, DType::i64, kCuda));
        const Tensor expected = dropout(x.to(DType::f32), probability, here).to(dtype);
        check_identical(dropout(x.to(kCuda), probability, there).to(kCpu), expected);
        check_identical(dropout(x.to(kCuda), probability, based).to(kCpu), expected);
        CHECK(here.offset() == there.offset());
        CHECK(here.offset() == based.offset() + 40);
      }
    }
  }
}

}  // namespace monoid

#include "monoid/ops/matmul.h"

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/kernels/matmul.h"
#include "monoid/kernels/product.h"
#include "monoid/ops/elementwise.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/gradcheck.h"

namespace monoid {
namespace {

using test::check_close;
using test::check_close_in_norm;
using test::check_identical;

// Plain loops in f64 over matrices already brought to one batch: the specification.
Tensor oracle(const Tensor& a, const Tensor& b) {
  const int64_t batch = a.size(0), m = a.size(1), k = a.size(2), n = b.size(2);
  Tensor c = Tensor::zeros({batch, m, n}, DType::f64);
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double* z = c.data<double>();
  for (int64_t p = 0; p < batch; ++p) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t l = 0; l < k; ++l) {
          z[(p * m + i) * n + j] +=
              x[static_cast<size_t>((p * m + i) * k + l)] * y[static_cast<size_t>((p * k + l) * n + j)];
        }
      }
    }
  }
  return c;
}

Tensor normal(const Shape& shape, uint64_t seed, DType dtype = DType::f32) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 1, dtype);
}

// x repeated along a new leading axis, without memory.
Tensor repeated(const Tensor& x, int64_t count) {
  return x.as_strided(x.shape().inserted(0, count), x.strides().inserted(0, 0), x.offset());
}

}  // namespace

TEST_CASE("matmul and linear have the gradients of their forwards", "[matmul]") {
  for (const OpEntry& entry : matmul_ops()) {
    SampleMaker make(7);
    for (const OpSample& sample : entry.samples(make)) test::check_gradients(entry.name, sample);
  }
}

TEST_CASE("a batch of matrices by one matrix equals the batch of products, in any layout of the batch", "[matmul]") {
  const Tensor a = normal({3, 11, 20}, 1), b = normal({20, 9}, 2);
  const Tensor expected = oracle(a, repeated(b, 3)).to(DType::f32);
  check_close_in_norm(matmul(a, b), expected, 1e-6);
  check_close_in_norm(matmul(a, repeated(b, 3).clone()), expected, 1e-6);
  check_close_in_norm(matmul(a, repeated(b, 3)), expected, 1e-6);
  // [time, batch, k] seen as [batch, time, k], and columns of a wider tensor.
  const Tensor time_first = a.as_strided({11, 3, 20}, {20, 220, 1}, 0).clone();
  check_close_in_norm(matmul(time_first.as_strided({3, 11, 20}, {20, 60, 1}, 0), b), expected, 1e-6);
  const Tensor wide = normal({3, 11, 50}, 3);
  Tensor window = wide.as_strided({3, 11, 20}, wide.strides(), 7);
  window.copy_from(a);
  check_close_in_norm(matmul(window, b), expected, 1e-6);
}

TEST_CASE("transposed operands are read in place", "[matmul]") {
  const Tensor a = normal({2, 33, 40}, 1), b = normal({2, 40, 21}, 2);
  const Tensor expected = oracle(a, b).to(DType::f32);
  const Tensor a_columns = transposed(transposed(a).clone()), b_columns = transposed(transposed(b).clone());
  Tensor c = Tensor::empty({2, 33, 21});
  for (const Tensor& left : {a, a_columns}) {
    for (const Tensor& right : {b, b_columns}) {
      const uint64_t requests = memory_stats().requests;
      kernels::matmul(left, right, {}, {}, c);
      CHECK(memory_stats().requests == requests);
      check_close_in_norm(c, expected, 1e-6);
    }
  }
  // Neither step is 1: every second column of every second row. Here, and only here, a copy is needed.
  const Tensor sparse = normal({2, 66, 80}, 3).as_strided({2, 33, 40}, {5280, 160, 2}, 0);
  check_close_in_norm(matmul(sparse, b), oracle(sparse, b).to(DType::f32), 1e-6);
}

TEST_CASE("batch axes broadcast both ways, and gradients are summed over them", "[matmul]") {
  const Tensor a = normal({2, 1, 5, 6}, 1, DType::f64), b = normal({3, 6, 4}, 2, DType::f64);
  const Tensor c = matmul(a, b);
  REQUIRE(c.shape() == Shape{2, 3, 5, 4});
  for (int64_t i = 0; i < 2; ++i) {
    const Tensor one = a.as_strided({1, 5, 6}, {30, 6, 1}, i * 30);
    const Tensor products = c.as_strided({3, 5, 4}, {20, 4, 1}, i * 60);
    check_close(products.clone(), oracle(one.as_strided({3, 5, 6}, {0, 6, 1}, i * 30), b), 1e-13, 1e-13);
  }
}

TEST_CASE("empty operands give empty or zero products", "[matmul]") {
  CHECK(matmul(Tensor::ones({0, 4}), Tensor::ones({4, 3})).shape() == Shape{0, 3});
  CHECK(matmul(Tensor::ones({5, 0, 4}), Tensor::ones({4, 3})).shape() == Shape{5, 0, 3});
  check_identical(matmul(Tensor::ones({2, 0}), Tensor::ones({0, 3})), Tensor::zeros({2, 3}));
  check_identical(linear(Tensor::ones({2, 0}), Tensor::ones({3, 0}), Tensor::ones({3})), Tensor::ones({2, 3}));
}

TEST_CASE("linear is x times the transpose of the weight plus bias, for any leading axes", "[matmul]") {
  const Tensor weight = normal({37, 50}, 1), bias = normal({37}, 2);
  for (const Shape& shape : {Shape{50}, Shape{1, 50}, Shape{4, 50}, Shape{3, 7, 50}, Shape{2, 2, 40, 50}}) {
    CAPTURE(shape);
    const Tensor x = normal(shape, 3);
    const int64_t rows = x.elements() / 50;
    const Tensor y = linear(x, weight, bias);
    REQUIRE(y.shape() == shape.with(-1, 37));
    const Tensor expected = oracle(x.view({1, rows, 50}), transposed(weight.view({1, 37, 50})));
    for (int64_t i = 0; i < expected.elements(); ++i) expected.detach().data<double>()[i] += bias.data<float>()[i % 37];
    check_close_in_norm(y, expected.to(DType::f32).view(y.shape()), 1e-6);
  }
}

TEST_CASE("linear_gelu is gelu of linear, with and without a bias, thin or strided", "[matmul]") {
  for (const auto& [rows, in, out] : {std::array<int64_t, 3>{1, 20, 33}, {5, 7, 3}, {70, 40, 600}, {300, 24, 129}}) {
    CAPTURE(rows, in, out);
    const Tensor x = transposed(normal({in, rows}, 1)), weight = normal({out, in}, 2), bias = normal({out}, 3);
    check_close_in_norm(linear_gelu(x, weight, bias), gelu(linear(x, weight, bias)), 1e-6);
    check_close_in_norm(linear_gelu(x, weight), gelu(linear(x, weight)), 1e-6);
  }
  CHECK_THROWS_WITH(linear_gelu(normal({2, 3}, 1), normal({4, 5}, 1)), ContainsSubstring("linear_gelu: "));
}

TEST_CASE("a residual is added to linear: the same as a sum afterwards, thin, sliced or strided", "[matmul]") {
  for (const auto& [rows, in, out] :
       {std::array<int64_t, 3>{1, 20, 33}, {5, 7, 3}, {70, 40, 90}, {33, 5000, 20}, {600, 24, 530}, {40, 9, 1}}) {
    CAPTURE(rows, in, out);
    const Tensor x = normal({rows, in}, 1), weight = normal({out, in}, 2), bias = normal({out}, 3);
    const Tensor residual = normal({rows, out}, 4), columns = transposed(transposed(residual).clone());
    check_close_in_norm(linear(x, weight, bias, residual), linear(x, weight, bias) + residual, 1e-6);
    check_close_in_norm(linear(x, weight, {}, residual), linear(x, weight) + residual, 1e-6);
    check_identical(linear(x, weight, bias, columns), linear(x, weight, bias, residual));
  }
  // Summed over a batch with gaps, the addend counts once.
  const Tensor a = normal({5, 12, 9}, 6), b = normal({5, 9, 7}, 7), addend = normal({1, 10, 7}, 8);
  const Tensor part = a.as_strided({5, 10, 9}, {108, 9, 1}, 0);
  Tensor sum = Tensor::empty({1, 10, 7}), with = Tensor::empty({1, 10, 7});
  kernels::matmul(part, b, {}, {}, sum);
  kernels::matmul(part, b, {}, addend, with);
  check_close_in_norm(with, sum + addend, 1e-6);
  const Tensor batched = normal({3, 4, 6}, 5);
  check_close_in_norm(linear(batched, normal({6, 6}, 6), {}, batched), linear(batched, normal({6, 6}, 6)) + batched,
                      1e-6);
}

TEST_CASE("linear reads strided rows: the last step of each sequence, a slice of a packed projection", "[matmul]") {
  const Tensor x = normal({4, 9, 30}, 1), weight = normal({5, 10}, 2);
  const Tensor last = x.as_strided({4, 10}, {270, 1}, 8 * 30 + 20), packed = x.as_strided({4, 9, 10}, {270, 30, 1}, 10);
  check_identical(linear(last, weight), linear(last.clone(), weight));
  check_close_in_norm(linear(packed, weight), linear(packed.clone(), weight), 1e-6);
}

TEST_CASE("products and gradients have the same bits on 1 and on 4 threads", "[matmul]") {
  const int before = threads();
  const auto run = [](int count, int64_t rows, int64_t in, int64_t out) {
    set_threads(count);
    Tensor x = normal({2, rows, in}, 1), weight = normal({out, in}, 2), bias = normal({out}, 3);
    for (Tensor* leaf : {&x, &weight, &bias}) leaf->set_requires_grad();
    Tape tape;
    const Tensor y = linear(x, weight, bias);
    tape.backward(y, normal(y.shape(), 4));
    return Tensors{y.detach(), x.grad(), weight.grad(), bias.grad()};
  };
  for (const auto& [rows, in, out] :
       {std::array<int64_t, 3>{3000, 96, 65}, {300, 384, 520}, {1, 1500, 1030}, {1, 3, 2}}) {
    CAPTURE(rows, in, out);
    const Tensors one = run(1, rows, in, out), four = run(4, rows, in, out);
    for (size_t i = 0; i < one.size(); ++i) check_identical(four[i], one[i]);
  }
  set_threads(before);
}

TEST_CASE("a misuse of matmul or linear is an error that says what to do", "[matmul]") {
  const Tensor a = Tensor::ones({2, 3});
  CHECK_THROWS_WITH(
      matmul(a, Tensor::ones({3})),
      ContainsSubstring("matmul: wants matrices, got f32[2, 3] and f32[3]") && ContainsSubstring("unsqueeze()"));
  CHECK_THROWS_WITH(matmul(a, a), ContainsSubstring("has 3 columns but f32[2, 3] has 2 rows; transpose()"));
  CHECK_THROWS_WITH(matmul(Tensor::ones({2, 2, 3}), Tensor::ones({3, 3, 2})), ContainsSubstring("do not broadcast"));
  CHECK_THROWS_WITH(matmul(a, Tensor::ones({3, 2}, DType::f64)), ContainsSubstring("two dtypes"));
  CHECK_THROWS_WITH(matmul(a, Tensor()), ContainsSubstring("the right operand is undefined"));
  CHECK_THROWS_WITH(matmul(a.to(DType::bf16), Tensor::ones({3, 2}, DType::bf16)), ContainsSubstring("cast()"));
  CHECK_THROWS_WITH(linear(a, Tensor::ones({4, 2})), ContainsSubstring("input is f32[2, 3], wanted [..., 2]"));
  CHECK_THROWS_WITH(linear(a, Tensor::ones({4})), ContainsSubstring("weight is f32[4], wanted [out, in]"));
  CHECK_THROWS_WITH(linear(a, Tensor::ones({4, 3}), Tensor::ones({3})),
                    ContainsSubstring("bias is f32[3], wanted shape [4]"));
  CHECK_THROWS_WITH(linear(a, Tensor::ones({4, 3}), {}, Tensor::ones({4})),
                    ContainsSubstring("residual is f32[4], wanted shape [2, 4]"));
  CHECK_THROWS_WITH(linear(Tensor::scalar(1), Tensor::ones({4, 1})), ContainsSubstring("wanted [..., 1]"));
}

}  // namespace monoid

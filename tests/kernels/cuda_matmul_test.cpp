#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/core/stream.h"
#include "monoid/kernels/matmul.h"
#include "monoid/kernels/matmul_precision.h"
#include "monoid/kernels/product.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

using test::check_identical;
using test::check_repeats;
using test::cuda_or_skip;
using test::Guarded;
using test::kCuda;

// The contract in plain loops: sums in f64, and the sums of magnitudes that a rounding error is measured against.
struct Expected {
  Tensor value, magnitude;
};

int64_t place(const Tensor& x, const Shape& index) {
  int64_t at = 0;
  for (int axis = 0; axis < x.rank(); ++axis) at += x.size(axis) == 1 ? 0 : index[axis] * x.strides()[axis];
  return at;
}

Expected oracle(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, const Shape& shape) {
  Expected expected{Tensor::zeros(shape, DType::f64), Tensor::zeros(shape, DType::f64)};
  Shape full = shape;  // of the loop over (batch, m, n)
  for (int axis = 0; axis < shape.rank() - 2; ++axis) full[axis] = std::max(a.size(axis), b.size(axis));
  const int64_t k = a.size(-1);
  double *value = expected.value.data<double>(), *magnitude = expected.magnitude.data<double>();
  const auto add = [&](int64_t at, double term) { value[at] += term, magnitude[at] += std::abs(term); };
  Shape index = full;
  for (int64_t i = 0; i < full.elements(); ++i) {
    int64_t rest = i;
    for (int axis = full.rank() - 1; axis >= 0; --axis) index[axis] = rest % full[axis], rest /= full[axis];
    const int64_t at = place(expected.value, index);
    for (int64_t l = 0; l < k; ++l) {
      const double left = a.data<float>()[place(a, index.with(-1, l))];
      add(at, left * b.data<float>()[place(b, index.with(-2, l))]);
    }
  }
  for (int64_t at = 0; at < shape.elements(); ++at) {
    if (bias.defined()) add(at, bias.data<float>()[at % shape.back()]);
    if (addend.defined()) add(at, addend.data<float>()[at]);
  }
  return expected;
}

// Values that bf16 holds exactly, so that both dtypes compute the same product.
Tensor normal(const Shape& shape, uint64_t seed) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 1, DType::f32).to(DType::bf16).to(DType::f32);
}

// The same view, strides and all, of x's storage on the GPU in another dtype.
Tensor on_gpu(const Tensor& x, DType dtype) {
  if (!x.defined()) return {};
  const auto count = static_cast<int64_t>(x.storage()->bytes() / size_of(x.dtype()));
  const Tensor whole = x.as_strided({count}, {1}, 0).to(dtype).to(kCuda);
  return whole.as_strided(x.shape(), x.strides(), x.offset());
}

void check_against(const Tensor& actual, const Expected& expected, DType dtype, double relative) {
  const double rounding = dtype == DType::bf16 ? 1.0 / 256 : 0;
  const auto got = actual.to(kCpu).to(DType::f64).to_vector<double>();
  const auto value = expected.value.to_vector<double>(), magnitude = expected.magnitude.to_vector<double>();
  int failures = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound = relative * magnitude[i] + rounding * std::abs(value[i]) + 1e-30;
    if (!(std::abs(got[i] - value[i]) <= bound) && ++failures <= 3) {
      CAPTURE(i, got[i], value[i], bound);
      CHECK(std::abs(got[i] - value[i]) <= bound);
    }
  }
  CHECK(failures == 0);
}

// Both dtypes, into a guarded output full of NaN; `skipped` elements take it off the 16-byte grid.
void check_product(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, const Shape& shape,
                   int64_t skipped = 0) {
  const Expected expected = oracle(a, b, bias, addend, shape);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(a.shape(), a.strides(), b.shape(), b.strides(), shape, dtype, bias.defined(), addend.defined(), skipped);
    Guarded c(shape, dtype, skipped);
    const Tensor left = on_gpu(a, dtype), right = on_gpu(b, dtype);
    kernels::matmul(left, right, on_gpu(bias, dtype), on_gpu(addend, dtype), c.tensor());
    check_against(c.tensor(), expected, dtype, 1e-6);
    c.check_intact();
  }
}

// A matrix [rows, columns] by rows or by columns, its lines `gap` further apart than long, `offset` into its storage.
Tensor matrix(int64_t rows, int64_t columns, bool by_columns, int64_t gap, int64_t offset, uint64_t seed) {
  const int64_t length = by_columns ? rows : columns, count = by_columns ? columns : rows, step = length + gap;
  const Tensor x = normal({count * step + offset + 1}, seed);
  return x.as_strided({rows, columns}, by_columns ? Strides{1, step} : Strides{step, 1}, offset);
}

}  // namespace

TEST_CASE("CUDA products are right for every mix of awkward extents and layouts", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  uint64_t bits = 0;
  for (const int64_t m : {0, 1, 7, 8, 127, 129}) {
    for (const int64_t n : {0, 1, 7, 8, 127, 129}) {
      for (const int64_t k : {0, 1, 7, 8, 127, 129}) {
        // Layouts, gaps, offsets and extras rotate with the shape, so that each is met with every extent.
        ++bits;
        const int64_t gap = static_cast<int64_t>(bits % 3) * 5, offset = static_cast<int64_t>(bits % 4);
        const Tensor a = matrix(m, k, bits * 7 % 2 == 1, gap, offset, 1);
        const Tensor b = matrix(k, n, bits * 7 / 2 % 2 == 1, gap, offset, 2);
        const Tensor bias = bits % 5 < 2 ? normal({n}, 3) : Tensor();
        const Tensor addend = bits % 5 < 3 && bits % 5 > 0 ? normal({m, n}, 4) : Tensor();
        check_product(a, b, bias, addend, {m, n}, offset);
      }
    }
  }
}

TEST_CASE("CUDA products of round extents, with bias and addend", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  for (const int64_t m : {1, 3, 8, 9, 16, 64, 200}) {
    for (const int64_t k : {8, 24, 64, 520, 1536}) {
      const Tensor x = normal({m, k}, 1), weight = normal({96, k}, 2), bias = normal({96}, 3),
                   addend = normal({m, 96}, 4);
      check_product(x, transposed(weight), bias, addend, {m, 96});
      check_product(x, transposed(weight), {}, addend, {m, 96});
      check_product(x, transposed(weight), bias, {}, {m, 96});
    }
  }
}

TEST_CASE("CUDA products with neither step 1, rows repeated, a strided bias", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  const Tensor x = normal({80, 60}, 1), y = normal({60, 90}, 2);
  check_product(x.as_strided({40, 30}, {120, 2}, 1), y.as_strided({30, 45}, {180, 2}, 0), {}, {}, {40, 45});
  check_product(x.as_strided({40, 30}, {0, 1}, 3), y.as_strided({30, 45}, {90, 1}, 2), {}, {}, {40, 45});
  const Tensor bias = normal({90}, 3).as_strided({45}, {2}, 1);
  const Expected expected =
      oracle(x.as_strided({40, 30}, {60, 1}, 0), y.as_strided({30, 45}, {90, 1}, 0), bias.clone(), {}, {40, 45});
  Guarded c({40, 45});
  kernels::matmul(x.to(kCuda).as_strided({40, 30}, {60, 1}, 0), y.to(kCuda).as_strided({30, 45}, {90, 1}, 0),
                  on_gpu(bias, DType::f32), {}, c.tensor());
  check_against(c.tensor(), expected, DType::f32, 1e-6);
}

TEST_CASE("CUDA products batched, broadcast, summed: folded, strided or in a loop", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  const auto both = [](const Shape& a, const Shape& b, const Shape& c) {
    const Tensor left = normal(a, 1), right = normal(b, 2);
    check_product(left, right, {}, {}, c);
    check_product(left, right, normal({c.back()}, 3), normal(c, 4), c);
    const Tensor columns = transposed(transposed(left).clone());
    check_product(columns, transposed(transposed(right).clone()), {}, {}, c);
  };
  both({3, 9, 20}, {1, 20, 11}, {3, 9, 11});       // folds into the rows
  both({1, 9, 20}, {3, 20, 11}, {3, 9, 11});       // broadcast
  both({1, 9, 20}, {3, 20, 1}, {3, 9, 1});         // a result by columns
  both({5, 16, 24}, {5, 24, 8}, {5, 16, 8});       // a strided batch
  both({2, 1, 9, 6}, {1, 3, 6, 5}, {2, 3, 9, 5});  // a batch and a loop
  both({2, 3, 4, 9, 6}, {2, 1, 4, 6, 5}, {2, 3, 4, 9, 5});
  both({0, 9, 6}, {0, 6, 5}, {0, 9, 5});
  both({4, 9, 20}, {4, 20, 11}, {1, 9, 11});  // the gradient of a broadcast operand
  both({2, 3, 9, 6}, {2, 3, 6, 5}, {2, 1, 9, 5});
  both({2, 3, 9, 6}, {2, 1, 6, 5}, {1, 3, 9, 5});
  both({0, 9, 6}, {0, 6, 5}, {1, 9, 5});  // a sum over nothing
  const Tensor x = normal({3, 10, 12}, 5), dy = normal({3, 9, 7}, 6);
  // Nine of ten steps of each sequence: the batch does not fold into k.
  check_product(transposed(dy), x.as_strided({3, 9, 12}, {120, 12, 1}, 0), {}, {}, {1, 7, 12});
  check_product(dy.as_strided({3, 7, 9}, {63, 1, 7}, 0), x.as_strided({3, 9, 12}, {120, 12, 1}, 12), {}, {},
                {1, 7, 12});
  // A convolution of three taps: overlapping windows, a tap axis that steps backwards, and a bias.
  for (const int64_t in : {12, 16}) {
    const Tensor padded = normal({3, 10, in}, 7), taps = normal({3, in, 8}, 8);
    check_product(padded.as_strided({3, 3, 8, in}, {10 * in, in, in, 1}, 0),
                  taps.as_strided({1, 3, in, 8}, {0, -in * 8, 8, 1}, in * 16), normal({8}, 9), {}, {3, 1, 8, 8});
  }
}

TEST_CASE("CUDA batches of more matrices than one launch takes", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  const Tensor a = normal({70000, 2, 3}, 1), b = normal({70000, 3, 2}, 2);
  check_product(a, b, {}, {}, {70000, 2, 2});
}

TEST_CASE("CUDA products repeat bit for bit, eager and replayed", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1536, 512},
                                  {13, 512, 1536},
                                  {300, 200, 5000},
                                  {96, 64, 32768},
                                  {2048, 1536, 512},
                                  {129, 127, 63}}) {
      CAPTURE(dtype, m, n, k);
      const Tensor a = normal({m, k}, 1).to(dtype).to(kCuda), b = normal({n, k}, 2).to(dtype).to(kCuda);
      const Tensor bias = normal({n}, 3).to(dtype).to(kCuda), addend = normal({m, n}, 4).to(dtype).to(kCuda);
      const auto run = [&] {
        Tensor c = Tensor::empty({m, n}, dtype, kCuda);
        kernels::matmul(a, transposed(b), bias, addend, c);
        return std::vector<Tensor>{c};
      };
      check_repeats(run, 100);
      const Tensor eager = run()[0];
      Tensor replayed;
      const Graph graph(kCuda, [&] { replayed = run()[0]; });
      graph.replay();
      check_identical(replayed, eager);
    }
  }
}

TEST_CASE("a row of a thin CUDA product has the same bits whatever comes with it", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [n, k] : {std::array<int64_t, 2>{512, 768}, {1000, 4096}, {20, 8}, {50000, 64}}) {
      CAPTURE(dtype, n, k);
      const Tensor x = normal({16, k}, 1).to(dtype).to(kCuda), weight = normal({n, k}, 2).to(dtype).to(kCuda);
      Tensor all = Tensor::empty({16, n}, dtype, kCuda);
      kernels::matmul(x, transposed(weight), {}, {}, all);
      for (const int64_t rows : {1, 3, 8, 9}) {
        Guarded some({rows, n}, dtype);
        kernels::matmul(x.as_strided({rows, k}, {k, 1}, 0), transposed(weight), {}, {}, some.tensor());
        check_identical(some.tensor(), all.as_strided({rows, n}, {n, 1}, 0).clone());
        some.check_intact();
      }
    }
  }
}

TEST_CASE("tuning changes no bit of a CUDA product", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{2048, 1536, 512},
                                {2048, 768, 2048},
                                {640, 130, 72},
                                {1536, 512, 16384},
                                {512, 768, 32768}}) {
    CAPTURE(m, n, k);
    // What is first met in a capture is not tuned; rows further apart make it another product.
    const Tensor wide = normal({m, k + 64}, 1).to(DType::bf16).to(kCuda),
                 b = normal({k, n}, 2).to(DType::bf16).to(kCuda);
    const Tensor a = wide.as_strided({m, k}, {k + 64, 1}, 0);
    Tensor tuned = Tensor::empty({m, n}, DType::bf16, kCuda), untuned = Tensor::empty({m, n}, DType::bf16, kCuda);
    kernels::matmul(a.clone(), b, {}, {}, tuned);
    const Graph graph(kCuda, [&] { kernels::matmul(a, b, {}, {}, untuned); });
    graph.replay();
    check_identical(untuned, tuned);
  }
}

TEST_CASE("CUDA products of f32 are exact unless TF32 is asked for", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  Generator generator(1);
  const Tensor a = random_normal({256, 512}, generator, 0, 1), b = random_normal({512, 256}, generator, 0, 1);
  const Expected expected = oracle(a, b, {}, {}, {256, 256});
  const auto error = [&] {
    Tensor c = Tensor::empty({256, 256}, DType::f32, kCuda);
    kernels::matmul(a.to(kCuda), b.to(kCuda), {}, {}, c);
    const auto got = c.to_vector<float>();
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i)
      worst =
          std::max(worst, std::abs(got[i] - expected.value.data<double>()[i]) / expected.magnitude.data<double>()[i]);
    return worst;
  };
  CHECK(error() < 1e-6);
  set_matmul_precision(MatmulPrecision::tf32);
  const double rounded = error();
  set_matmul_precision(MatmulPrecision::exact);
  CHECK(rounded > 1e-6);
  CHECK(rounded < 1e-3);
  CHECK(error() < 1e-6);
}

TEST_CASE("a CUDA product of a dtype that CUDA does not compute from is an error", "[cuda][matmul]") {
  if (!cuda_or_skip()) return;
  Tensor c = Tensor::empty({2, 2}, DType::f64, kCuda);
  CHECK_THROWS_WITH(kernels::matmul(c, c, {}, {}, c), ContainsSubstring("matmul: computes from f32 or bf16"));
}

}  // namespace monoid

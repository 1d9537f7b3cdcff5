#include <vector>

#include "monoid/core/random.h"
#include "monoid/kernels/decoding.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/norm.h"
#include "monoid/ops/norm_linear.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

Tensor numbers(const Shape& shape, uint64_t seed, DType dtype, double deviation = 1) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, deviation, DType::f64).to(dtype).to(DType::f64);
}

Tensor on_cuda(const Tensor& x, DType dtype) { return x.defined() ? x.to(dtype).to(kCuda) : x; }

struct Sizes {
  int64_t rows, in, out;
};
const Sizes kSizes[] = {{1, 512, 1536}, {1, 8, 1},    {2, 24, 33},    {5, 1024, 48},  {8, 520, 17}, {16, 64, 100},
                        {17, 72, 40},   {33, 96, 50}, {64, 512, 130}, {64, 1024, 16}, {31, 2048, 8}};

}  // namespace

TEST_CASE("a normed linear of few rows on CUDA, in one kernel, agrees with the ops on the CPU", "[cuda][decoding]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [rows, in, out] : kSizes) {
      if (dtype == DType::f32 && rows > 16) continue;
      for (int variant = 0; variant < 8; ++variant) {
        CAPTURE(dtype, rows, in, out, variant);
        FewRowsExtras extras{.normed = variant % 2 == 0,
                             .norm_weight = variant % 4 == 0 ? numbers({in}, 1, dtype) : Tensor(),
                             .eps = rms_norm_eps(-1, dtype),
                             .bias = variant / 2 % 2 == 0 ? numbers({out}, 2, dtype) : Tensor(),
                             .activation = variant < 4 ? Activation::none : Activation::gelu};
        const Tensor x = numbers({rows, in}, 3, dtype), weight = numbers({out, in}, 4, dtype, 0.1);
        const Tensor normed = extras.normed ? rms_norm(x, extras.norm_weight, extras.eps) : x;
        Tensor expected = linear(normed, weight);
        if (extras.bias.defined()) expected = expected + extras.bias;
        if (extras.activation == Activation::gelu) expected = gelu(expected);
        extras.norm_weight = on_cuda(extras.norm_weight, dtype);
        extras.bias = on_cuda(extras.bias, dtype);
        Tensor y;
        kernels::few_rows_linear(on_cuda(x, dtype), on_cuda(weight, dtype), extras, y);
        REQUIRE(y.defined());
        check_close_in_norm(y.to(kCpu).to(DType::f64), expected, dtype == DType::bf16 ? 6e-3 : 2e-6);
      }
    }
  }
}

TEST_CASE("a normed linear keeps rows of any magnitude on CUDA", "[cuda][decoding]") {
  if (!cuda_or_skip()) return;
  for (double magnitude : {1e-25, 1e-15, 1e18, 1e25}) {
    CAPTURE(magnitude);
    const Tensor x = numbers({2, 64}, 5, DType::bf16) * magnitude, weight = numbers({16, 64}, 6, DType::bf16);
    const Tensor expected = linear(rms_norm(x, {}, 0), weight);
    Tensor y;
    kernels::few_rows_linear(on_cuda(x, DType::f32), on_cuda(weight, DType::f32), {.normed = true, .eps = 0}, y);
    REQUIRE(y.defined());
    check_close_in_norm(y.to(kCpu).to(DType::f64), expected, 1e-5);
  }
}

TEST_CASE("rms_norm_linear on CUDA: one kernel for a few rows, ops for the others and under a tape",
          "[cuda][decoding]") {
  if (!cuda_or_skip()) return;
  const DType dtype = DType::bf16;
  for (const Shape& shape : {Shape{1, 1, 64}, Shape{3, 5, 64}, Shape{2, 60, 64}, Shape{0, 1, 64}, Shape{4, 1, 63}}) {
    const int64_t in = shape.back();
    const Tensor x = numbers(shape, 1, dtype), norm = numbers({in}, 2, dtype),
                 weight = numbers({40, in}, 3, dtype, 0.1);
    const Tensor bias = numbers({40}, 4, dtype), expected = gelu(linear(rms_norm(x, norm), weight, bias));
    const auto run = [&] {
      return rms_norm_linear(on_cuda(x, dtype), on_cuda(norm, dtype), -1, on_cuda(weight, dtype).set_requires_grad(),
                             on_cuda(bias, dtype), Activation::gelu);
    };
    const LinearAndSum plain = run();
    Tape tape;
    const LinearAndSum recorded = run();
    CHECK(tape.size() > 0);
    for (const auto& [output, sum] : {plain, recorded}) {
      REQUIRE(output.shape() == expected.shape());
      if (x.elements() == 0) continue;
      check_close_in_norm(output.to(kCpu).to(DType::f64), expected, 2e-2);
      check_close(sum.to(kCpu).to(DType::f64), x, 0);
    }
  }
  CHECK_THROWS_WITH(
      rms_norm_linear(on_cuda(numbers({2, 8}, 1, dtype), dtype), {}, -1, on_cuda(numbers({4, 16}, 1, dtype), dtype)),
      ContainsSubstring("linear: ") && ContainsSubstring("[4, 16]"));
}

TEST_CASE("copies in one launch move every byte and no other", "[cuda][decoding]") {
  if (!cuda_or_skip()) return;
  std::vector<Tensor> sources;
  std::vector<Guarded> targets;
  targets.reserve(150);
  std::vector<CopyItem> items;
  for (int64_t i = 0; i < 150; ++i) {  // more than a launch takes
    const DType dtype = i % 2 ? DType::bf16 : DType::f32;
    sources.push_back(numbers({i % 7 == 0 ? 70000 + i : i}, static_cast<uint64_t>(i), dtype).to(dtype).to(kCuda));
    targets.emplace_back(sources.back().shape(), dtype, i % 3);
    items.push_back({sources.back(), targets.back().tensor()});
  }
  kernels::copy_each(sources[0], items);
  for (size_t i = 0; i < items.size(); ++i) {
    CAPTURE(i);
    check_identical(targets[i].tensor(), sources[i]);
    targets[i].check_intact();
  }
}

}  // namespace monoid::test

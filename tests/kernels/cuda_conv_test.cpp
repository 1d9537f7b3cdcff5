#include <cmath>

#include "monoid/kernels/conv.h"
#include "monoid/ops/conv.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda_parity.h"

namespace monoid::test {
namespace {

// Inputs: x, weight, bias, tail.
Tensors run(const Tensors& in) {
  const ConvResult result = causal_depthwise_conv1d(in[0], in[1], in[2], in[3]);
  if (result.tail.elements() == 0) return {result.output};
  return {result.output, result.tail};
}

double tolerance_of(DType dtype) { return dtype == DType::bf16 ? 8e-3 : 5e-6; }

}  // namespace

TEST_CASE("CUDA convolution agrees with the CPU for every kernel, time and width", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const int64_t kernel = GENERATE(1, 2, 3, 4, 5, 6, 7, 8, 9), channels = GENERATE(1, 3, 8, 31, 264, 1000);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t time : {1, 2, 3, 7, 8, 9, 63, 130, 1000}) {
    if (time * channels > 300000) continue;
    CAPTURE(kernel, channels, time, name(dtype));
    const Tensor x = normal({2, time, channels}, 1), weight = normal({channels, kernel}, 2);
    const Tensor bias = normal({channels}, 3), tail = normal({2, kernel - 1, channels}, 4);
    check_parity(run, {x, weight, bias, tail}, dtype, tolerance_of(dtype));
    check_parity(run, {x, weight, {}, {}}, dtype, tolerance_of(dtype));
  }
}

TEST_CASE("CUDA convolution takes strided inputs, weights and cotangents", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t shift : {0, 3, 8}) {
    CAPTURE(shift);
    const auto packed = [=](const Tensors& in) -> Tensors {
      const Tensor x = slice(in[0], -1, shift, shift + 40), tail = slice(in[0], 1, 0, 3);
      const ConvResult result =
          causal_depthwise_conv1d(x, transpose(in[1], 0, 1), {}, slice(tail, -1, shift, shift + 40));
      return {slice(result.output, 2, shift, 20), slice(result.output, 1, 5, 20), result.tail};
    };
    check_parity(packed, {normal({2, 50, 56}, 1), normal({4, 40}, 2)}, dtype, tolerance_of(dtype));
  }
}

TEST_CASE("CUDA convolution: chunks that hand on their tail give the bits of the whole", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t channels : {5, 64}) {
    const Tensors in = on_cuda({normal({2, 37, channels}, 1), normal({channels, 4}, 2), normal({channels}, 3)}, dtype);
    const Tensor whole = causal_depthwise_conv1d(in[0], in[1], in[2]).output;
    Tensor tail;
    int64_t begin = 0;
    for (const int64_t end : {1, 2, 19, 20, 37}) {
      const ConvResult chunk = causal_depthwise_conv1d(slice(in[0], 1, begin, end), in[1], in[2], tail);
      check_identical(chunk.output.to(kCpu), slice(whole, 1, begin, end).to(kCpu));
      tail = chunk.tail;
      begin = end;
    }
  }
}

TEST_CASE("CUDA convolution writes its outputs and nothing beside them", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const int64_t channels = GENERATE(3, 40, 264), skipped = GENERATE(0, 1), time = GENERATE(2, 133);
  const int64_t taps = GENERATE(4, 7);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const Shape shape{3, time, channels}, before{3, taps - 1, channels};
  const Tensors in =
      on_cuda({normal(shape, 1), normal({channels, taps}, 2), normal(before, 3), normal(shape, 4)}, dtype);
  Guarded y(shape, dtype, skipped), dx(shape, dtype, skipped), dtail(before, dtype, skipped);
  Guarded dweight({channels, taps}, dtype, skipped), dbias({channels}, dtype, skipped);
  kernels::causal_conv(in[0], in[1], {}, in[2], y.tensor());
  kernels::causal_conv_gradient(in[3], in[2], in[0], in[1], in[2], dx.tensor(), dtail.tensor(), dweight.tensor(),
                                dbias.tensor());
  for (Guarded* output : {&y, &dx, &dtail, &dweight, &dbias}) {
    output->check_intact();
    for (const double value : output->tensor().to_vector<double>()) REQUIRE(!std::isnan(value));
  }
}

TEST_CASE("CUDA convolution gives the same bits on every run", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t channels : {33, 256}) {
    const Tensors values = on_cuda(
        {normal({3, 700, channels}, 1), normal({channels, 4}, 2), normal({channels}, 3), normal({3, 3, channels}, 4)},
        dtype);
    check_repeats([&] { return outputs_and_gradients(run, values); });
  }
}

TEST_CASE("CUDA convolution: the weight's gradient keeps its digits over a million steps", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const auto output = [](const Tensors& in) -> Tensors {
    return {causal_depthwise_conv1d(in[0], in[1], in[2]).output};
  };
  check_parity(output, {normal({4, 250000, 4}, 1, 1, 1), normal({4, 4}, 2), normal({4}, 3)}, DType::f32, 1e-5);
}

TEST_CASE("CUDA dense convolution agrees with the CPU", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t kernel : {1, 3, 4}) {
    CAPTURE(kernel, name(dtype));
    const auto padded = [=](const Tensors& in) -> Tensors { return {conv1d(in[0], in[1], in[2], kernel - 1, 1)}; };
    check_parity(padded, {normal({2, 33, 24}, 1), normal({16, 24, kernel}, 2), normal({16}, 3)}, dtype,
                 dtype == DType::bf16 ? 1e-2 : 1e-5);
  }
}

TEST_CASE("CUDA convolution of no time, batch or channels", "[cuda][conv]") {
  if (!cuda_or_skip()) return;
  for (const auto& [batch, time, channels] : {std::array<int64_t, 3>{2, 0, 8}, {0, 5, 8}, {2, 5, 0}}) {
    CAPTURE(batch, time, channels);
    check_parity(run,
                 {normal({batch, time, channels}, 1), normal({channels, 3}, 2), normal({channels}, 3),
                  normal({batch, 2, channels}, 4)},
                 DType::f32, 1e-6);
  }
}

}  // namespace monoid::test

#include <algorithm>
#include <cmath>
#include <vector>

#include "monoid/kernels/norm.h"
#include "monoid/ops/norm.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda_parity.h"

namespace monoid::test {
namespace {

constexpr double kEps = 1e-5;  // one for all dtypes

// All norms in one list, so that every case below sees each of them. Inputs: x, residual, weight, bias.
struct Norm {
  const char* name;
  DeviceOp run;
};

const std::vector<Norm>& norms() {
  static const std::vector<Norm> list{
      {"rms_norm", [](const Tensors& in) -> Tensors { return {rms_norm(in[0], in[2], kEps)}; }},
      {"l2_rms_norm", [](const Tensors& in) -> Tensors { return {l2_rms_norm(in[0], in[2])}; }},
      {"layer_norm", [](const Tensors& in) -> Tensors { return {layer_norm(in[0], in[2], in[3])}; }},
      {"add_rms_norm",
       [](const Tensors& in) -> Tensors {
         const NormAndSum result = add_rms_norm(in[0], in[1], in[2], kEps);
         return {result.normed, result.sum};
       }},
      {"add_layer_norm",
       [](const Tensors& in) -> Tensors {
         const NormAndSum result = add_layer_norm(in[0], in[1], in[2], in[3]);
         return {result.normed, result.sum};
       }},
      {"add_rms_norm, no residual",
       [](const Tensors& in) -> Tensors {
         const NormAndSum result = add_rms_norm(in[0], {}, in[2], kEps);
         return {result.normed, result.sum};
       }},
  };
  return list;
}

// Eighths: their sums are exact in bf16, so that short centred rows do not magnify a rounding that the CPU has not.
Tensor eighths(const Shape& shape, uint64_t seed) {
  Tensor x = normal(shape, seed);
  for (double *value = x.data<double>(), *end = value + x.elements(); value < end; ++value)
    *value = std::round(*value * 8) / 8;
  return x;
}

Tensors inputs_of(int64_t rows, int64_t length) {
  return {eighths({rows, length}, 1), eighths({rows, length}, 2), normal({length}, 3), normal({length}, 4)};
}

double tolerance_of(DType dtype) { return dtype == DType::bf16 ? 1e-2 : 1e-5; }

}  // namespace

TEST_CASE("CUDA norms and their gradients agree with the CPU at every row length", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const int64_t length =
      GENERATE(1, 2, 3, 8, 31, 33, 64, 65, 256, 264, 1000, 1024, 2047, 2048, 2049, 4096, 8191, 8192, 8193, 20000);
  for (const int64_t rows : {1, 3, 131}) {
    if (rows * length > 1500000) continue;
    for (const Norm& norm : norms()) {
      // One centred channel is rounding noise divided by sqrt(eps), one channel has gradient 0 up to cancellation.
      if (length < 3) continue;
      CAPTURE(norm.name, rows, length, name(dtype));
      check_parity(norm.run, inputs_of(rows, length), dtype, tolerance_of(dtype));
    }
  }
  const Tensors short_rows{normal({5, length}, 1), {}, normal({length}, 3)};
  const auto rms = [](const Tensors& in) -> Tensors { return {rms_norm(in[0], in[2], 0.5)}; };
  check_parity(rms, short_rows, dtype, tolerance_of(dtype));
}

TEST_CASE("CUDA norms take absent weights, packed rows and transposed inputs", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const double tolerance = tolerance_of(dtype);
  for (const int64_t shift : {0, 3, 8}) {
    CAPTURE(shift);
    const auto packed = [=](const Tensors& in) -> Tensors {
      const NormAndSum result = add_rms_norm(slice(in[0], -1, shift, shift + 40), slice(in[1], -1, 2, 42), {}, kEps);
      return {result.normed, result.sum};
    };
    check_parity(packed, {normal({2, 7, 56}, 1), normal({2, 7, 64}, 2)}, dtype, tolerance);
  }
  const auto turned = [](const Tensors& in) -> Tensors {
    return {layer_norm(transpose(in[0], 0, 1)), layer_norm(in[1], {}, in[2], 0.5)};
  };
  check_parity(turned, {normal({3, 5, 24}, 1), normal({9, 16}, 2), normal({16}, 3)}, dtype, tolerance);
}

TEST_CASE("CUDA norms give the same bits on every run", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t length : {65, 1024, 4096, 9000}) {
    const Tensors values = on_cuda(inputs_of(length < 4096 ? 300 : 40, length), dtype);
    for (const Norm& norm : norms()) {
      check_repeats([&] {
        Tensors results = outputs_and_gradients(norm.run, values);
        std::erase_if(results, [](const Tensor& result) { return !result.defined(); });
        return results;
      });
    }
  }
}

TEST_CASE("CUDA norms write their outputs and nothing beside them", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  const int64_t length = GENERATE(1, 33, 64, 1000, 2051, 8200), skipped = GENERATE(0, 1);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const Tensors in = on_cuda({normal({37, length}, 1), normal({37, length}, 2), normal({length}, 3)}, dtype);
  Guarded y({37, length}, dtype, skipped), sum({37, length}, dtype, skipped), dx({37, length}, dtype, skipped);
  Guarded mean({37}, DType::f64), scale({37}, DType::f64), dweight({length}, dtype), dbias({length}, dtype);
  kernels::layer_norm(in[0], in[1], in[2], {}, 1e-5, sum.tensor(), y.tensor(), mean.tensor(), scale.tensor());
  kernels::layer_norm_gradient(sum.tensor(), in[2], mean.tensor(), scale.tensor(), in[1], in[0], dx.tensor(),
                               dweight.tensor(), dbias.tensor());
  for (Guarded* output : {&y, &sum, &dx, &mean, &scale, &dweight, &dbias}) {
    output->check_intact();
    const auto values = output->tensor().to_vector<double>();
    CHECK(std::none_of(values.begin(), values.end(), [](double value) { return std::isnan(value); }));
  }
}

TEST_CASE("CUDA layer norm sees noise of 1e-3 through an offset of 1e4, and takes constant rows", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  const auto plain = [](const Tensors& in) -> Tensors { return {layer_norm(in[0], in[1], in[2])}; };
  check_parity(plain, {normal({5, 512}, 1, 1e-3, 1e4), normal({512}, 2), normal({512}, 3)}, DType::f32, 5e-6);
  const Tensor bias = normal({1000}, 3).to(DType::f32);
  for (const double value : {0.1, -3e4, 1e20}) {
    const Tensor y = layer_norm(Tensor::full({1, 1000}, value).to(kCuda), {}, bias.to(kCuda));
    check_identical(y.to(kCpu), bias.view({1, 1000}));
  }
}

TEST_CASE("CUDA norms take rows of any magnitude, zeros and rows under the clamp", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  for (const double magnitude : {1e20, 1e-9, 1e-14, 0.}) {
    CAPTURE(magnitude);
    const Tensors values{normal({4, 100}, 1, magnitude), {}, normal({100}, 2), normal({100}, 3)};
    for (size_t i = 0; i < 3; ++i) check_parity(norms()[i].run, values, DType::f32, 1e-5);
  }
}

TEST_CASE("CUDA parameter gradients of norms keep their digits over many rows", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  const auto squares = [](const Tensors& in) -> Tensors {
    return {rms_norm(in[0], in[2], kEps), layer_norm(in[0], in[2])};
  };
  for (const int64_t length : {3, 16})
    check_parity(squares, {normal({100000, length}, 1), {}, normal({length}, 2)}, DType::f32, 2e-6);
}

TEST_CASE("CUDA norms of no rows: empty outputs, zero parameter gradients", "[cuda][norm]") {
  if (!cuda_or_skip()) return;
  for (const Norm& norm : norms()) check_parity(norm.run, inputs_of(0, 6), DType::f32, 0);
}

}  // namespace monoid::test

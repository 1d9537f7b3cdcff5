#include "monoid/core/random.h"
#include "monoid/kernels/bias_gelu.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

// Numbers that `dtype` holds exactly, in f64.
Tensor numbers(const Shape& shape, DType dtype, uint64_t seed) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 2, DType::f64).to(dtype).to(DType::f64);
}

Tensor on_cuda(const Tensor& x, DType dtype) { return x.defined() ? x.to(dtype).to(kCuda) : x; }

double tolerance(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : 4e-6; }

void check_against(const Tensor& actual, const Tensor& expected, double absolute) {
  check_close(actual.to(kCpu).to(DType::f64), expected, tolerance(actual.dtype()), absolute);
}

// Rows fewer and more than threads that share columns; columns of one pack, odd, of several tiles.
const Shape kShapes[] = {{1, 1},    {3, 7},    {5, 8},     {257, 24},  {33, 264}, {100, 100},
                         {2, 2048}, {7, 4104}, {2000, 16}, {1031, 40}, {0, 16},   {4, 0}};

}  // namespace

TEST_CASE("bias_gelu and its gradients on CUDA agree with the CPU", "[cuda][bias_gelu]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : kShapes) {
      for (int64_t skipped : {0, 1}) {
        for (bool biased : {true, false}) {
          CAPTURE(dtype, shape, skipped, biased);
          const Tensor x = numbers(shape, dtype, 1), dy = numbers(shape, dtype, 2);
          const Tensor bias = biased ? numbers({shape.back()}, dtype, 3) : Tensor();
          Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x);
          Tensor dbias = Tensor::empty({shape.back()}, DType::f64);
          kernels::bias_gelu(x, bias, y);
          kernels::bias_gelu_gradient(x, bias, dy, dx, dbias);
          const Tensor cuda_x = on_cuda(x, dtype), cuda_bias = on_cuda(bias, dtype), cuda_dy = on_cuda(dy, dtype);
          Guarded cuda_y(shape, dtype, skipped), cuda_dx(shape, dtype, skipped), cuda_dbias({shape.back()}, dtype);
          kernels::bias_gelu(cuda_x, cuda_bias, cuda_y.tensor());
          kernels::bias_gelu_gradient(cuda_x, cuda_bias, cuda_dy, cuda_dx.tensor(), cuda_dbias.tensor());
          check_against(cuda_y.tensor(), y, tolerance(dtype));
          check_against(cuda_dx.tensor(), dx, tolerance(dtype));
          const double rows = static_cast<double>(shape[0]);
          check_against(cuda_dbias.tensor(), dbias, (dtype == DType::bf16 ? 1e-3 : 4e-6) * (1 + rows));
          for (Guarded* result : {&cuda_y, &cuda_dx, &cuda_dbias}) result->check_intact();
        }
      }
    }
  }
}

TEST_CASE("bias_gelu on CUDA leaves out a gradient of the bias that is not wanted", "[cuda][bias_gelu]") {
  if (!cuda_or_skip()) return;
  const Shape shape{300, 72};
  const Tensor x = on_cuda(numbers(shape, DType::bf16, 1), DType::bf16), dy = x.clone();
  const Tensor bias = on_cuda(numbers({72}, DType::bf16, 2), DType::bf16);
  Tensor with = Tensor::empty_like(x), without = Tensor::empty_like(x), dbias = Tensor::empty_like(bias), none;
  kernels::bias_gelu_gradient(x, bias, dy, with, dbias);
  kernels::bias_gelu_gradient(x, bias, dy, without, none);
  check_identical(with, without);
}

TEST_CASE("bias_gelu's gradients on CUDA have the same bits every time", "[cuda][bias_gelu]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = on_cuda(numbers({4099, 520}, dtype, 1), dtype),
                 dy = on_cuda(numbers({4099, 520}, dtype, 2), dtype);
    const Tensor bias = on_cuda(numbers({520}, dtype, 3), dtype);
    check_repeats([&] {
      Tensor dx = Tensor::empty_like(x), dbias = Tensor::empty_like(bias);
      kernels::bias_gelu_gradient(x, bias, dy, dx, dbias);
      return std::vector{dx, dbias};
    });
  }
}

}  // namespace monoid::test

#include "monoid/core/random.h"
#include "monoid/kernels/gated_gelu.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

// Numbers that `dtype` holds exactly, in f64.
Tensor numbers(const Shape& shape, DType dtype, uint64_t seed) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 2, DType::f64).to(dtype).to(DType::f64);
}

void check_against(Guarded& actual, const Tensor& expected, DType dtype) {
  const double tolerance = dtype == DType::bf16 ? 0x1p-8 : 4e-6;
  check_close(actual.tensor().to(kCpu).to(DType::f64), expected, tolerance, tolerance);
  actual.check_intact();
}

}  // namespace

TEST_CASE("gated_gelu and its gradient on CUDA agree with the CPU", "[cuda][gated_gelu]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    // Whole packs, single channels, more rows than a block has threads.
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 7}, Shape{5, 8}, Shape{257, 24}, Shape{2, 1365}, Shape{1031, 40},
                               Shape{2, 3, 16}, Shape{0, 16}, Shape{4, 0}}) {
      for (const int64_t skipped : {0, 1}) {
        CAPTURE(dtype, shape, skipped);
        const Shape wide = shape.with(-1, 2 * shape.back());
        const Tensor x = numbers(wide, dtype, 1), dy = numbers(shape, dtype, 2);
        Tensor y = Tensor::empty_like(dy), dx = Tensor::empty_like(x);
        kernels::gated_gelu(x, y);
        kernels::gated_gelu_gradient(x, dy, dx);
        const Tensor cuda_x = x.to(dtype).to(kCuda), cuda_dy = dy.to(dtype).to(kCuda);
        Guarded cuda_y(shape, dtype, skipped), cuda_dx(wide, dtype, skipped);
        kernels::gated_gelu(cuda_x, cuda_y.tensor());
        kernels::gated_gelu_gradient(cuda_x, cuda_dy, cuda_dx.tensor());
        check_against(cuda_y, y, dtype);
        check_against(cuda_dx, dx, dtype);
      }
    }
  }
}

}  // namespace monoid::test

#include <algorithm>
#include <limits>

#include "monoid/core/random.h"
#include "monoid/kernels/softmax.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Form {
  const char* name;
  const Kernel<Softmax>& forward;
  const Kernel<SoftmaxGradient>& gradient;
};
const Form kForms[] = {{"softmax", kernels::softmax, kernels::softmax_gradient},
                       {"log_softmax", kernels::log_softmax, kernels::log_softmax_gradient}};

// Compares both directions on rows that may have any stride between them.
void check_form(const Form& form, DType dtype, const Tensor& x, const Tensor& dy, const Tensor& cuda_x) {
  const DType wide = DType::f64;
  const double rounding = dtype == DType::bf16 ? 0x1p-7 : 4e-6;
  Tensor y = Tensor::empty(x.shape(), wide), dx = Tensor::empty_like(y);
  Guarded cuda_y(x.shape(), dtype), cuda_dx(x.shape(), dtype, 1);
  form.forward(x.to(wide), y);
  form.forward(cuda_x, cuda_y.tensor());
  // A logarithm is the difference of numbers up to 12, each of them rounded to f32.
  const double absolute = &form.forward == &kernels::log_softmax ? 2e-6 : 0;
  check_close(cuda_y.tensor().to(kCpu).to(wide), y, rounding, std::max(absolute, rounding * 0x1p-6));
  const Tensor stored = cuda_y.tensor().to(kCpu).to(wide);
  form.gradient(stored, dy.to(wide), dx);
  form.gradient(cuda_y.tensor(), dy.to(dtype).to(kCuda), cuda_dx.tensor());
  // Its gradient is dy - probability * sum(dy), where the sum of a long row is rounded where it is of size 100.
  check_close(cuda_dx.tensor().to(kCpu).to(wide), dx, rounding, std::max(4 * absolute, rounding * 0.1));
  cuda_y.check_intact();
  cuda_dx.check_intact();
}

}  // namespace

TEST_CASE("softmax of rows of any length agrees with the CPU", "[cuda][softmax]") {
  if (!cuda_or_skip()) return;
  for (const Form& form : kForms) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (int64_t length : {1, 3, 31, 33, 64, 65, 256, 1000, 1024, 4096, 16384, 16392, 50257, 65536}) {
        const int64_t rows = length > 4096 ? 3 : 37;
        CAPTURE(form.name, dtype, length);
        Generator generator(2);
        const Tensor wide = random_normal({rows, 2 * length}, generator, 0, 3).to(dtype);
        const Tensor dy = random_normal({rows, length}, generator).to(dtype);
        const Tensor cuda_wide = wide.to(kCuda);
        check_form(form, dtype, slice(wide, 1, 0, length), dy, slice(cuda_wide, 1, 0, length));
        check_form(form, dtype, slice(wide, 1, length, 2 * length), dy, slice(cuda_wide, 1, length, 2 * length));
      }
    }
  }
}

TEST_CASE("softmax keeps the CPU's limits at infinities", "[cuda][softmax]") {
  if (!cuda_or_skip()) return;
  const float nan = std::nanf("");
  const std::vector<float> edges{-kInfinity, -kInfinity, -kInfinity, -kInfinity,  //
                                 0,          kInfinity,  1,          kInfinity,   //
                                 nan,        1,          2,          3,           //
                                 1e4f,       -1e4f,      1e4f,       0,           //
                                 -kInfinity, 3,          3,          -kInfinity};
  for (int64_t repeats : {1, 40, 9000}) {
    const Tensor x = reshape(expand(Tensor::from(edges, {5, 1, 4}), {5, repeats, 4}), {5, repeats * 4});
    const Tensor cuda_x = x.to(kCuda), dy = Tensor::full(x.shape(), 0.5);
    for (const Form& form : kForms) {
      CAPTURE(repeats, form.name);
      Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x);
      Tensor cuda_y = Tensor::empty_like(cuda_x), cuda_dx = Tensor::empty_like(cuda_x);
      form.forward(x, y);
      form.forward(cuda_x, cuda_y);
      check_close(cuda_y.to(kCpu), y, 1e-5, 1e-7);
      form.gradient(y, dy, dx);
      form.gradient(y.to(kCuda), dy.to(kCuda), cuda_dx);
      check_close(cuda_dx.to(kCpu), dx, 1e-5, 1e-5);
    }
  }
}

}  // namespace monoid::test

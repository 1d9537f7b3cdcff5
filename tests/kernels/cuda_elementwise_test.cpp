#include <cmath>
#include <limits>

#include "monoid/core/random.h"
#include "monoid/kernels/elementwise.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

constexpr int kUnaryFunctions = static_cast<int>(UnaryFunction::divide_into) + 1;
constexpr int kBinaryFunctions = static_cast<int>(BinaryFunction::minimum) + 1;
constexpr Scalars kScalars{1.25, 2.5};

double tolerance(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : 4e-6; }

// Numbers that `dtype` holds exactly, in f64.
Tensor numbers(const Shape& shape, DType dtype, uint64_t seed = 1) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 2, DType::f64).to(dtype).to(DType::f64);
}

Tensor on_cuda(const Tensor& x, DType dtype) { return x.to(dtype).to(kCuda); }

void check_against(const Tensor& actual, const Tensor& expected) {
  const double rounding = tolerance(actual.dtype());
  check_close(actual.to(kCpu).to(DType::f64), expected, rounding, rounding);
}

template <class Visit>
void for_each_unary(Visit visit) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int f = 0; f < kUnaryFunctions; ++f) {
      CAPTURE(dtype, f);
      visit(dtype, static_cast<UnaryFunction>(f));
    }
  }
}

// Views that the map takes in packs, with a rest, off the 16-byte grid, by single elements, and backwards.
using View = Tensor (*)(const Tensor&);
constexpr View kViews[] = {
    [](const Tensor& x) { return x; },
    [](const Tensor& x) { return slice(x, 1, 0, 32); },
    [](const Tensor& x) { return slice(x, 1, 1, 33); },
    [](const Tensor& x) { return transpose(x, 0, 1); },
    [](const Tensor& x) {
      return expand(slice(x, 1, 3, 4), {40, 48});
    },
    [](const Tensor& x) {
      return expand(select(x, 0, 2), {40, 48});
    },
    [](const Tensor& x) {
      return x.as_strided({40, 24}, {48, -2}, 47);
    },
    [](const Tensor& x) {
      return permute(reshape(x, {5, 8, 4, 12}), {2, 0, 3, 1});
    },
};

}  // namespace

TEST_CASE("unary functions and gradients agree with the CPU", "[cuda][elementwise]") {
  if (!cuda_or_skip()) return;
  for_each_unary([](DType dtype, UnaryFunction function) {
    for (int64_t count : {1, 3, 31, 33, 1000, 65537}) {
      CAPTURE(count);
      const Tensor x = numbers({count}, dtype), dy = numbers({count}, dtype, 2);
      Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x);
      kernels::unary(function, x, kScalars, y);
      Guarded cuda_y({count}, dtype, count % 2), cuda_dx({count}, dtype);
      kernels::unary(function, on_cuda(x, dtype), kScalars, cuda_y.tensor());
      check_against(cuda_y.tensor(), y);
      cuda_y.check_intact();
      const Tensor saved = saved_by(function) == Saves::output ? y.to(dtype).to(DType::f64) : x;
      kernels::unary_gradient(function, saved, dy, kScalars, dx);
      kernels::unary_gradient(function, on_cuda(saved, dtype), on_cuda(dy, dtype), kScalars, cuda_dx.tensor());
      check_against(cuda_dx.tensor(), dx);
      cuda_dx.check_intact();
    }
  });
}

TEST_CASE("unary functions keep the CPU's care at the ends of the range", "[cuda][elementwise]") {
  if (!cuda_or_skip()) return;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> edges{0.f,    -0.f, 1.f,   -1.f,   50.f,    -50.f,     88.f,       -88.f,        104.f,
                                 -104.f, 1e4f, -1e4f, 1e-20f, -1e-20f, kInfinity, -kInfinity, std::nanf("")};
  const Tensor x = Tensor::from(edges, {static_cast<int64_t>(edges.size())}), dy = Tensor::ones(x.shape());
  for_each_unary([&](DType dtype, UnaryFunction function) {
    if (dtype == DType::bf16) return;  // the same arithmetic
    Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x), cuda_x = x.to(kCuda);
    Tensor cuda_y = Tensor::empty_like(cuda_x), cuda_dx = Tensor::empty_like(cuda_x);
    kernels::unary(function, x, kScalars, y);
    kernels::unary(function, cuda_x, kScalars, cuda_y);
    check_close(cuda_y.to(kCpu), y, 4e-6, 1e-6);
    const Tensor& saved = saved_by(function) == Saves::output ? y : x;
    kernels::unary_gradient(function, saved, dy, kScalars, dx);
    kernels::unary_gradient(function, saved.to(kCuda), dy.to(kCuda), kScalars, cuda_dx);
    check_close(cuda_dx.to(kCpu), dx, 4e-6, 1e-6);
  });
}

TEST_CASE("elementwise kernels take operands of any strides", "[cuda][elementwise]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = numbers({40, 48}, dtype), cuda_x = on_cuda(x, dtype);
    for (const View view : kViews) {
      const Tensor a = view(x), cuda_a = view(cuda_x);
      CAPTURE(dtype, a.shape(), a.strides());
      Tensor y = Tensor::empty(a.shape(), DType::f64);
      kernels::unary(UnaryFunction::tanh, a, {}, y);
      Guarded cuda_y(a.shape(), dtype);
      kernels::unary(UnaryFunction::tanh, cuda_a, {}, cuda_y.tensor());
      check_against(cuda_y.tensor(), y);
      cuda_y.check_intact();
    }
  }
}

TEST_CASE("binary functions and gradients broadcast as on the CPU", "[cuda][elementwise]") {
  if (!cuda_or_skip()) return;
  const std::vector<std::pair<Shape, Shape>> shapes = {
      {{1000}, {1000}},         {{33}, {}},          {{}, {33}},
      {{37, 64}, {64}},         {{37, 64}, {37, 1}}, {{37, 65}, {65}},
      {{3, 1, 8}, {5, 1}},      {{2, 3, 4}, {3, 1}}, {{0, 4}, {4}},
      {{70000, 3}, {3}},        {{5, 1, 7}, {6, 7}}, {{65537}, {65537}},
      {{4, 96, 40}, {4, 1, 40}}};
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [a_shape, b_shape] : shapes) {
      const Tensor a = numbers(a_shape, dtype), b = numbers(b_shape, dtype, 2);
      const Shape shape = broadcast_shapes("test", a_shape, b_shape);
      const Tensor dy = numbers(shape, dtype, 3);
      const Tensor cuda_a = on_cuda(a, dtype), cuda_b = on_cuda(b, dtype), cuda_dy = on_cuda(dy, dtype);
      for (int f = 0; f < kBinaryFunctions; ++f) {
        const auto function = static_cast<BinaryFunction>(f);
        CAPTURE(dtype, a_shape, b_shape, f);
        Tensor y = Tensor::empty(shape, DType::f64), da = Tensor::empty_like(y), db = Tensor::empty_like(y), none;
        kernels::binary(function, a, b, y);
        kernels::binary_gradient(function, a, b, dy, da, db);
        Guarded cuda_y(shape, dtype), cuda_da(shape, dtype), cuda_db(shape, dtype, 1), only_db(shape, dtype);
        kernels::binary(function, cuda_a, cuda_b, cuda_y.tensor());
        kernels::binary_gradient(function, cuda_a, cuda_b, cuda_dy, cuda_da.tensor(), cuda_db.tensor());
        kernels::binary_gradient(function, cuda_a, cuda_b, cuda_dy, none, only_db.tensor());
        // Quotients by numbers near 0 and their gradients are large: errors count relative to the values.
        check_against(cuda_y.tensor(), y);
        check_against(cuda_da.tensor(), da);
        check_against(cuda_db.tensor(), db);
        check_identical(only_db.tensor(), cuda_db.tensor());
        for (const Guarded* output : {&cuda_y, &cuda_da, &cuda_db, &only_db}) output->check_intact();
      }
    }
  }
}

TEST_CASE("comparisons and selection take every dtype", "[cuda][elementwise]") {
  if (!cuda_or_skip()) return;
  Generator generator(4);
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8, DType::boolean}) {
    const Tensor a = random_integers({50, 40}, generator, 3).to(dtype),
                 b = random_integers({40}, generator, 3).to(dtype);
    const Tensor cuda_a = a.to(kCuda), cuda_b = b.to(kCuda);
    Tensor mask = Tensor::empty(a.shape(), DType::boolean), y = Tensor::empty_like(a);
    for (Comparison comparison : {Comparison::equal, Comparison::less, Comparison::greater}) {
      CAPTURE(dtype, static_cast<int>(comparison));
      const DType computed = dtype == DType::bf16 ? DType::f32 : dtype;
      kernels::compare(comparison, a.to(computed), b.to(computed), mask);
      kernels::where(mask, a, b, y);
      Guarded cuda_mask(a.shape(), DType::boolean, 3), cuda_y(a.shape(), dtype);
      kernels::compare(comparison, cuda_a, cuda_b, cuda_mask.tensor());
      kernels::where(cuda_mask.tensor(), cuda_a, cuda_b, cuda_y.tensor());
      check_identical(cuda_mask.tensor().to(kCpu), mask);
      check_identical(cuda_y.tensor().to(kCpu), y);
      cuda_mask.check_intact();
      cuda_y.check_intact();
    }
  }
}

TEST_CASE("elementwise computation in f64 is refused", "[cuda][elementwise]") {
  if (!cuda_or_skip()) return;
  Tensor x = Tensor::ones({2}, DType::f64, kCuda);
  CHECK_THROWS_WITH(kernels::unary(UnaryFunction::exp, x, {}, x), ContainsSubstring("f32 or bf16"));
}

}  // namespace monoid::test

#include <limits>

#include "monoid/core/random.h"
#include "monoid/kernels/reduce.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Numbers that `dtype` holds exactly, in f64.
Tensor numbers(const Shape& shape, DType dtype) {
  Generator generator(3);
  return random_normal(shape, generator, 0.25, 2, DType::f64).to(dtype).to(DType::f64);
}

// Layouts of a tensor [a, b, c]: as it is, turned, off the 16-byte grid, repeated, backwards.
using View = Tensor (*)(const Tensor&);
constexpr View kViews[] = {
    [](const Tensor& x) { return x; },
    [](const Tensor& x) { return transpose(x, 1, 2); },
    [](const Tensor& x) {
      return permute(x, {2, 0, 1});
    },
    [](const Tensor& x) { return slice(x, 2, 1, x.size(2)); },
    [](const Tensor& x) { return slice(x, 1, 0, (x.size(1) + 1) / 2); },
    [](const Tensor& x) {
      return expand(slice(x, 1, 0, 1), {x.size(0), 5, x.size(2)});
    },
};

template <class Visit>
void for_each_case(const std::vector<Shape>& shapes, Visit visit) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : shapes) {
      const Tensor base = numbers(shape, dtype), cuda_base = base.to(dtype).to(kCuda);
      for (const View view : kViews) {
        const Tensor x = view(base), cuda_x = view(cuda_base);
        CAPTURE(dtype, x.shape(), x.strides());
        visit(dtype, x, cuda_x);
      }
    }
  }
}

const std::vector<Shape> kShapes = {{1, 1, 1},     {3, 5, 7},     {2, 33, 64},  {4, 1000, 3},
                                    {31, 40, 128}, {1, 3, 65537}, {300, 200, 1}};

}  // namespace

TEST_CASE("sums over any axes agree with the CPU", "[cuda][reduce]") {
  if (!cuda_or_skip()) return;
  for_each_case(kShapes, [](DType dtype, const Tensor& x, const Tensor& cuda_x) {
    for (int axes = 1; axes < 8; ++axes) {
      Shape kept = x.shape();
      for (int axis = 0; axis < 3; ++axis) kept[axis] = axes >> axis & 1 ? 1 : kept[axis];
      CAPTURE(kept);
      Tensor expected = Tensor::empty(kept, DType::f64), magnitude = Tensor::empty(kept, DType::f64);
      kernels::sum(x, expected);
      Guarded y(kept, dtype);
      kernels::sum(cuda_x, y.tensor());
      // One rounding of the result, and those of f32 sums of up to as many terms of magnitude 2.
      const double terms = static_cast<double>(x.elements() / std::max<int64_t>(1, kept.elements()));
      check_close(y.tensor().to(kCpu).to(DType::f64), expected, dtype == DType::bf16 ? 0x1p-8 : 1e-6,
                  1e-7 * terms + 1e-6);
      y.check_intact();
    }
  });
}

TEST_CASE("log-sum-exp and extrema along each axis agree with the CPU", "[cuda][reduce]") {
  if (!cuda_or_skip()) return;
  for_each_case(kShapes, [](DType dtype, const Tensor& x, const Tensor& cuda_x) {
    for (int axis = 0; axis < 3; ++axis) {
      CAPTURE(axis);
      const Shape kept = x.shape().without(axis);
      Tensor expected = Tensor::empty(kept, DType::f64), place = Tensor::empty(kept, DType::i64);
      kernels::logsumexp(x, axis, expected);
      Guarded y(kept, dtype), index(kept, DType::i64);
      kernels::logsumexp(cuda_x, axis, y.tensor());
      check_close(y.tensor().to(kCpu).to(DType::f64), expected, dtype == DType::bf16 ? 0x1p-8 : 2e-6, 2e-6);
      y.check_intact();
      if (x.size(axis) == 0) continue;  // there is no place of nothing
      for (Extremum which : {Extremum::largest, Extremum::smallest}) {
        kernels::arg_extremum(x, axis, which, place);
        kernels::arg_extremum(cuda_x, axis, which, index.tensor());
        check_identical(index.tensor().to(kCpu), place);
        index.check_intact();
      }
    }
  });
}

TEST_CASE("reductions treat infinities, NaN, ties and empty axes as the CPU does", "[cuda][reduce]") {
  if (!cuda_or_skip()) return;
  const float nan = std::nanf("");
  const std::vector<float> rows{-kInfinity, -kInfinity, -kInfinity, -kInfinity,  //
                                1,          kInfinity,  kInfinity,  -kInfinity,  //
                                2,          nan,        kInfinity,  nan,         //
                                5,          5,          -kInfinity, 5,           //
                                1e4f,       -1e4f,      1e4f,       0,           //
                                0,          -0.f,       0,          -0.f};
  for (int64_t repeats : {1, 3, 400}) {
    const Tensor narrow = Tensor::from(rows, {6, 1, 4});
    const Tensor x = reshape(expand(narrow, {6, repeats, 4}), {6, repeats * 4}), cuda_x = x.to(kCuda);
    for (int axis : {0, 1}) {
      CAPTURE(repeats, axis);
      const Shape kept = x.shape().without(axis);
      Tensor expected = Tensor::empty(kept), place = Tensor::empty(kept, DType::i64);
      Tensor y = Tensor::empty(kept, DType::f32, kCuda), index = Tensor::empty(kept, DType::i64, kCuda);
      kernels::logsumexp(x, axis, expected);
      kernels::logsumexp(cuda_x, axis, y);
      check_close(y.to(kCpu), expected, 1e-6);
      for (Extremum which : {Extremum::largest, Extremum::smallest}) {
        kernels::arg_extremum(x, axis, which, place);
        kernels::arg_extremum(cuda_x, axis, which, index);
        check_identical(index.to(kCpu), place);
      }
    }
  }
  Tensor none = Tensor::empty({3, 0}, DType::f32, kCuda), total = Tensor::ones({3, 1}, DType::f32, kCuda);
  kernels::sum(none, total);
  CHECK(total.to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("sums of many terms are precise and the same every time", "[cuda][reduce]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1 << 22}, Shape{(1 << 20) + 1}, Shape{4096, 513}, Shape{70000, 24}}) {
      CAPTURE(dtype, shape);
      Generator generator(5);
      const Tensor x = random_uniform(shape, generator, 0, 1).to(dtype), cuda_x = x.to(kCuda);
      const Shape kept = shape.with(0, 1);
      Tensor expected = Tensor::empty(kept, DType::f64);
      kernels::sum(x.to(DType::f64), expected);
      const auto total = [&] {
        Tensor y = Tensor::empty(kept, dtype, kCuda);
        kernels::sum(cuda_x, y);
        return std::vector<Tensor>{y};
      };
      check_close(total().front().to(kCpu).to(DType::f64), expected, dtype == DType::bf16 ? 0x1p-8 : 5e-7);
      check_repeats(total);
    }
  }
}

}  // namespace monoid::test

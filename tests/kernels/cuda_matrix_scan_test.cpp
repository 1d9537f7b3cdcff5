// CUDA scans of matrices against the CPU's in f64 on the same values; a gradient is compared for the same states.

#include <algorithm>
#include <cmath>
#include <optional>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/kernels/matrix_scan.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/cuda.h"

using namespace monoid;
using namespace monoid::test;

namespace {

struct Operands {
  Tensor x, initial, cotangent, final_cotangent;
  MatrixForm form = MatrixForm::plain;
  TimeCut cut = TimeCut::allowed;

  Operands each(const auto& sequences, const auto& states) const {
    Operands result = *this;
    for (Tensor* t : {&result.x, &result.cotangent})
      if (t->defined()) *t = sequences(*t);
    for (Tensor* t : {&result.initial, &result.final_cotangent})
      if (t->defined()) *t = states(*t);
    return result;
  }
  Operands on(Device device) const {
    const auto there = [&](const Tensor& t) { return t.to(device); };
    return each(there, there);
  }
};

Shape state_shape(const Shape& shape) { return {shape[0], shape[2], shape[3], shape[4]}; }

// Matrices whose products over `shape` stay in range, of either form.
Operands draw(MatrixForm form, const Shape& shape, Generator& generator, DType dtype, bool with_state = true) {
  Operands result{{}, {}, {}, {}, form};
  const double order = static_cast<double>(shape[4]), spread = (shape[1] > 300 ? 0.1 : 0.3) / std::sqrt(order);
  Tensor x = random_normal(shape, generator, 0, form == MatrixForm::ldu ? 0.1 / order : spread);
  if (form == MatrixForm::plain) {
    for (int64_t i = 0; i < x.elements(); ++i)
      if (i % (shape[4] * shape[4]) % (shape[4] + 1) == 0) x.data<float>()[i] += shape[1] > 300 ? 1.0f : 0.85f;
  }
  result.x = x.to(dtype);
  if (with_state) result.initial = random_normal(state_shape(shape), generator);
  result.cotangent = random_normal(shape, generator).to(dtype);
  result.final_cotangent = random_normal(state_shape(shape), generator);
  return result;
}

// What a kernel writes; on a GPU, each in the middle of a guarded buffer.
struct Outputs {
  std::vector<Guarded> guarded;
  Tensors tensors;

  void add(const Shape& shape, DType dtype, Device device, int64_t skipped) {
    if (device.is_cuda()) guarded.emplace_back(shape, dtype, skipped);
    tensors.push_back(device.is_cuda() ? guarded.back().tensor() : Tensor::empty(shape, dtype));
  }
  void check_intact() const {
    for (const Guarded& output : guarded) output.check_intact();
  }
};

DType state_dtype(const Operands& operands) { return operands.x.dtype() == DType::f64 ? DType::f64 : DType::f32; }

Tensors forward(const Operands& operands, int64_t skipped = 0) {
  Outputs out;
  const Tensor& x = operands.x;
  out.add(x.shape(), x.dtype(), x.device(), skipped);
  out.add(state_shape(x.shape()), state_dtype(operands), x.device(), skipped);
  kernels::matrix_scan(x, operands.initial, out.tensors[0], out.tensors[1], operands.form, operands.cut);
  out.check_intact();
  return out.tensors;
}

Tensors backward(const Operands& operands, const Tensor& states, int64_t skipped = 0) {
  Outputs out;
  const Tensor& x = operands.x;
  out.add(x.shape(), x.dtype(), x.device(), skipped);
  if (operands.initial.defined()) {
    out.add(state_shape(x.shape()), state_dtype(operands), x.device(), skipped);
  } else {
    out.tensors.emplace_back();
  }
  kernels::matrix_scan_gradient(x, operands.initial, states, operands.cotangent, operands.final_cotangent,
                                out.tensors[0], out.tensors[1], operands.form, operands.cut);
  out.check_intact();
  return out.tensors;
}

Tensor exact(const Tensor& x) { return x.to(kCpu).to(DType::f64); }

// Of the largest value: the product of T matrices in f32 is off by a few T ulp; bf16 rounds what is stored.
void check_scan(const Operands& operands) {
  const double tolerance = 2e-5 * std::max(1.0, static_cast<double>(operands.x.size(1)) / 1000);
  const Operands here = operands.on(kCuda);
  const Operands reference = operands.each(exact, exact);
  const bool stored = operands.x.dtype() == DType::bf16;
  const Tensors found = forward(here), expected = forward(reference);
  check_close_in_norm(exact(found[0]), expected[0], stored ? 0x1p-8 : tolerance);
  check_close_in_norm(exact(found[1]), expected[1], tolerance);
  const Tensor states = expected[0].to(operands.x.dtype());
  const Tensors gradients = backward(here, states.to(kCuda)), others = backward(reference, exact(states));
  check_close_in_norm(exact(gradients[0]), others[0], stored ? 0x1p-8 : tolerance);
  if (gradients[1].defined()) check_close_in_norm(exact(gradients[1]), others[1], tolerance);
}

void check_shapes(const std::vector<Shape>& shapes) {
  Generator generator(1);
  for (const Shape& shape : shapes) {
    for (const MatrixForm form : {MatrixForm::plain, MatrixForm::ldu}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(shape, static_cast<int>(form), dtype);
        check_scan(draw(form, shape, generator, dtype, dtype == DType::f32));
      }
    }
  }
}

}  // namespace

TEST_CASE("CUDA matrix scans and their gradients follow the CPU's, small", "[cuda][matrix_scan][quick]") {
  if (!cuda_or_skip()) return;
  check_shapes({{1, 1, 1, 1, 1},
                {2, 1, 3, 8, 8},
                {1, 2, 1, 2, 2},
                {2, 37, 1, 4, 4},
                {1, 9, 2, 16, 16},
                {1, 5, 1, 32, 32},
                {1, 11, 2, 3, 3},
                {2, 0, 1, 8, 8},
                {0, 3, 1, 8, 8},
                {2, 0, 1, 5, 5}});
}

TEST_CASE("CUDA matrix scans and their gradients follow the CPU's at every order and length", "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  // Less than a segment, less than a tile, tiles and a rest, many tiles; few chains and many.
  check_shapes({{3, 17, 2, 8, 8},    {2, 255, 3, 8, 8},     {1, 256, 1, 8, 8},  {1, 257, 2, 8, 8},
                {2, 1000, 3, 8, 8},  {70, 33, 6, 8, 8},     {77, 5, 5, 8, 8},   {120, 9, 2, 16, 16},
                {250, 1, 1, 16, 16}, {24, 130, 10, 16, 16}, {2, 63, 1, 16, 16}, {2, 129, 3, 16, 16},
                {1, 517, 2, 16, 16}, {1, 7, 1, 32, 32},     {2, 33, 2, 32, 32}, {1, 100, 1, 32, 32},
                {2, 1500, 1, 4, 4},  {1, 5000, 2, 2, 2},    {2, 65, 2, 7, 7},   {1, 40, 1, 33, 33}});
}

TEST_CASE("CUDA matrix scans with any cotangent left out, and one step after the other", "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(2);
  for (const Shape& shape : {Shape{2, 300, 2, 8, 8}, Shape{1, 20, 1, 5, 5}, Shape{80, 21, 3, 16, 16}}) {
    for (const int absent : {1, 2, 3}) {
      Operands operands = draw(MatrixForm::plain, shape, generator, DType::f32, absent != 2);
      if (absent & 1) operands.cotangent = {};
      if (absent & 2) operands.final_cotangent = {};
      CAPTURE(shape, absent);
      check_scan(operands);
      operands.cut = TimeCut::never;
      check_scan(operands);
    }
  }
}

TEST_CASE("CUDA matrix scans read views in place, aligned or not", "[cuda][matrix_scan][quick]") {
  if (!cuda_or_skip()) return;
  Generator generator(3);
  for (const MatrixForm form : {MatrixForm::plain, MatrixForm::ldu}) {
    for (const int64_t offset : {4, 5}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Shape shape{2, 300, 3, 8, 8};
        const Operands dense = draw(form, shape, generator, dtype).on(kCuda);
        const auto inside = [&](const Tensor& x) {
          const int64_t head = 64 + 4 + offset % 2, step = 3 * head + 12;
          const Tensor buffer = Tensor::zeros({2 * 300 * step + 64}, dtype);
          const Strides strides{300 * step, step, head, 8, 1};
          buffer.as_strided(shape, strides, offset).copy_from(x.to(kCpu));
          return buffer.to(kCuda).as_strided(shape, strides, offset);
        };
        const Operands viewed = dense.each(inside, [](const Tensor& x) { return x; });
        CAPTURE(static_cast<int>(form), offset, dtype);
        const Tensors expected = forward(dense), found = forward(viewed, offset % 2);
        for (size_t i = 0; i < expected.size(); ++i) check_identical(found[i].to(kCpu), expected[i].to(kCpu));
        const Tensors gradients = backward(dense, expected[0]), others = backward(viewed, expected[0], offset % 2);
        for (size_t i = 0; i < gradients.size(); ++i) check_identical(others[i].to(kCpu), gradients[i].to(kCpu));
      }
    }
  }
}

TEST_CASE("CUDA matrix scans give the same bits every time", "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(4);
  for (const Shape& shape : {Shape{2, 3000, 2, 8, 8}, Shape{80, 200, 3, 16, 16}}) {
    for (const MatrixForm form : {MatrixForm::plain, MatrixForm::ldu}) {
      const Operands here = draw(form, shape, generator, DType::f32).on(kCuda);
      CAPTURE(shape, static_cast<int>(form));
      check_repeats([&] {
        Tensors results = forward(here);
        for (const Tensor& gradient : backward(here, results[0])) results.push_back(gradient);
        return results;
      });
    }
  }
}

TEST_CASE("A state carried from scan to scan on CUDA is one long scan", "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(5);
  const Operands here = draw(MatrixForm::ldu, {2, 700, 2, 8, 8}, generator, DType::f32).on(kCuda);
  const Tensors whole = forward(here);
  Operands part = here;
  for (int64_t t = 0; t < 700; t += 100) {
    part.x = here.x.as_strided(here.x.shape().with(1, 100), here.x.strides(), t * here.x.strides()[1]);
    part.initial = forward(part)[1];
  }
  check_close_in_norm(exact(part.initial), exact(whole[1]), 1e-5);
}

TEST_CASE("Permutations, a zero matrix and growth on CUDA are as exact as on the CPU", "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  constexpr int64_t kTime = 600;
  for (const int64_t order : {8, 16}) {
    Tensor x = Tensor::zeros({1, kTime, 1, order, order});
    float* entries = x.data<float>();
    for (int64_t t = 0; t < kTime; ++t)
      for (int64_t i = 0; i < order; ++i) entries[(t * order + i) * order + (i + t) % order] = t == 450 ? 0.0f : 1.0f;
    Generator generator(6);
    const Operands operands{x, random_normal({1, 1, order, order}, generator), {}, {}};
    const Tensors found = forward(operands.on(kCuda)), expected = forward(operands);
    for (size_t i = 0; i < found.size(); ++i) check_identical(found[i].to(kCpu), expected[i]);
  }
}

TEST_CASE("Rows stay finite on CUDA where only a product of steps does not, in both directions",
          "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  constexpr int64_t kTime = 64;
  Generator generator(8);
  for (const int64_t order : {8, 16}) {
    Operands operands = draw(MatrixForm::plain, {1, kTime, 1, order, order}, generator, DType::f32);
    // Four steps take column 0 by 1e20 each. Nothing is in it.
    for (int64_t t = 0; t < kTime; ++t) {
      float* const x = operands.x.data<float>() + t * order * order;
      for (int64_t i = 1; i < order; ++i) x[i] = x[i * order] = 0;
      x[0] = t >= 20 && t < 24 ? 1e20f : 1;
    }
    for (Tensor* t : {&operands.initial, &operands.cotangent, &operands.final_cotangent})
      for (int64_t i = 0; i < t->elements(); i += order) t->data<float>()[i] = 0;
    CAPTURE(order);
    check_scan(operands);
  }
}

TEST_CASE("Overflow on CUDA is found at its time and stays in its rows", "[cuda][matrix_scan]") {
  if (!cuda_or_skip()) return;
  constexpr int64_t kTime = 1000;
  // Row 0 doubles until it is infinite at step 127; then rows that a product of steps would spoil stay as they are.
  for (const auto& [cut, batch] :
       {std::pair<TimeCut, int64_t>{TimeCut::allowed, 1}, {TimeCut::allowed, 200}, {TimeCut::never, 1}}) {
    CAPTURE(batch);
    Tensor x = Tensor::zeros({batch, kTime, 2, 8, 8});
    for (int64_t t = 0; t < batch * kTime; ++t)
      for (int64_t i = 0; i < 16; ++i) x.data<float>()[t * 128 + i / 8 * 64 + i % 8 * 9] = i == 8 ? 2.0f : 1.0f;
    const Operands operands{x.to(kCuda), {}, {}, {}, MatrixForm::plain, cut};
    MatrixOverflow found;
    kernels::take_matrix_overflow(operands.x, found);
    const std::vector<float> last = forward(operands)[1].to_vector<float>();
    for (size_t i = 0; i < last.size(); ++i)
      if (i % 128 / 8 != 8) CHECK(last[i] == (i % 64 % 9 == 0 ? 1.0f : 0.0f));
    kernels::take_matrix_overflow(operands.x, found);
    CHECK(found.head == 1);
    CHECK(found.time >= 127);
    CHECK(found.time < 127 + kOverflowStretch);
    kernels::take_matrix_overflow(operands.x, found);
    CHECK(found.time == -1);
  }
}

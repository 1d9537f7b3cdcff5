#include "monoid/core/copy.h"
#include "monoid/core/random.h"
#include "monoid/kernels/join.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8, DType::boolean};

Tensor digits(const Shape& shape, DType dtype) {
  Generator generator(7);
  return random_integers(shape, generator, 200).to(dtype);
}

}  // namespace

TEST_CASE("copies convert every dtype as the CPU does", "[cuda][copy]") {
  if (!cuda_or_skip()) return;
  for (DType from : kDTypes) {
    for (DType to : kDTypes) {
      for (int64_t count : {1, 7, 1000}) {
        CAPTURE(from, to, count);
        const Tensor x = digits({count}, from);
        Guarded y({count}, to, count % 3);
        kernels::copy(x.to(kCuda), y.tensor());
        check_identical(y.tensor().to(kCpu), x.to(to));
        y.check_intact();
      }
    }
  }
}

TEST_CASE("copies round to bf16 to nearest even and keep the bits of equal dtypes", "[cuda][copy]") {
  if (!cuda_or_skip()) return;
  std::vector<float> values;
  for (uint32_t i = 0; i < 1 << 16; ++i) values.push_back(1.f + static_cast<float>(i) * 0x1p-16f);
  const Tensor x = Tensor::from(values, {1 << 16});
  check_identical(x.to(kCuda).to(DType::bf16).to(kCpu), x.to(DType::bf16));
  std::vector<int32_t> patterns;
  for (uint32_t i = 0; i < 1000; ++i) patterns.push_back(static_cast<int32_t>(i * 4'294'967));
  Tensor bits = Tensor::from(patterns, {1000}).to(kCuda);
  const Tensor floats = Tensor::wrap(bits.raw(), {1000}, DType::f32, kCuda);
  Tensor copied = floats.clone();
  CHECK(Tensor::wrap(copied.raw(), {1000}, DType::i32, kCuda).to_vector<int32_t>() == patterns);
}

TEST_CASE("copies turn planes of any extent around", "[cuda][copy]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::u8}) {
    for (const Shape& shape : {Shape{16, 16}, Shape{64, 128}, Shape{65, 63}, Shape{1, 200}, Shape{7, 1000},
                               Shape{3, 33, 100}, Shape{2, 3, 70, 40}}) {
      CAPTURE(dtype, shape);
      const Tensor x = digits(shape, dtype), cuda_x = x.to(kCuda);
      const Tensor turned = transpose(x, -1, -2);
      Guarded y(turned.shape(), dtype, 1);
      kernels::copy(transpose(cuda_x, -1, -2), y.tensor());
      check_identical(y.tensor().to(kCpu), turned);
      y.check_intact();
      // and into a view whose columns are dense
      Guarded z(shape, dtype);
      Tensor target = transpose(z.tensor(), -1, -2);
      kernels::copy(y.tensor(), target);
      check_identical(z.tensor().to(kCpu), x);
      z.check_intact();
    }
  }
}

TEST_CASE("copy and fill write windows and leave the rest", "[cuda][copy]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : kDTypes) {
    for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{{0, 8}, {1, 9}, {3, 17}, {5, 5}}) {
      CAPTURE(dtype, begin, end);
      Tensor expected = digits({6, 24, 5}, dtype), actual = expected.to(kCuda);
      const Tensor piece = digits({6, end - begin, 5}, DType::i64);
      for (Tensor* x : {&expected, &actual}) {
        Tensor window = slice(*x, 1, begin, end), column = select(*x, 2, 4);
        window.copy_from(piece);
        column.fill(3);
        x->as_strided({6, 4}, {120, -10}, 115).fill(1.75);
      }
      check_identical(actual.to(kCpu), expected);
    }
  }
}

TEST_CASE("join puts pieces of any strides side by side", "[cuda][copy]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16, DType::i64, DType::u8}) {
    for (const int64_t inner : {1, 3, 16}) {
      CAPTURE(dtype, inner);
      std::vector<JoinPiece> here, there;
      int64_t total = 0;
      const auto add = [&](const Tensor& piece, int64_t extent, const auto& view) {
        here.push_back({piece.defined() ? view(piece) : piece, extent});
        there.push_back({piece.defined() ? view(piece.to(kCuda)) : piece, extent});
        total += extent;
      };
      const auto whole = [](const Tensor& x) { return x; };
      const auto numbers = [&](const Shape& shape) { return digits(shape, dtype); };
      add(numbers({6, 5, inner}), 5, whole);
      add({}, 7, whole);
      add(numbers({6, 9, inner}), 3, [](const Tensor& x) { return slice(x, 1, 4, 7); });
      add(numbers({6, 0, inner}), 0, whole);
      add(numbers({4, 6, inner}), 4, [](const Tensor& x) { return transpose(x, 0, 1); });
      add(numbers({1, 8, inner}), 8, [&](const Tensor& x) { return expand(x, {6, 8, inner}); });
      for (int64_t i = 0; i < 9; ++i) add(numbers({6, 300, inner}), 300, whole);
      Tensor expected = Tensor::empty({6, total, inner}, dtype);
      kernels::join(here, 1, expected);
      Guarded actual({6, total, inner}, dtype);
      kernels::join(there, 1, actual.tensor());
      check_identical(actual.tensor().to(kCpu), expected);
      actual.check_intact();
    }
  }
}

TEST_CASE("accumulate adds summands of any strides to totals", "[cuda][copy]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int64_t count : {1, 33, 4096, 65537}) {
      CAPTURE(dtype, count);
      const Tensor x = digits({count}, dtype).to(DType::f32);
      Guarded total({count}, dtype);
      total.tensor().fill(2);
      kernels::accumulate(x.to(dtype).to(kCuda), total.tensor());
      Tensor expected = Tensor::full({count}, 2);
      kernels::accumulate(x, expected);
      check_identical(total.tensor().to(kCpu), expected.to(dtype));
      total.check_intact();
    }
    const Tensor row = digits({1, 40}, dtype).to(kCuda);
    Tensor total = Tensor::zeros({30, 40}, dtype, kCuda);
    kernels::accumulate(expand(row, {30, 40}), total);
    check_identical(total, expand(row, {30, 40}));
  }
}

}  // namespace monoid::test

#include "monoid/core/random.h"
#include "monoid/core/stream.h"
#include "monoid/kernels/cache.h"
#include "monoid/ops/rotary.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {
namespace {

Tensor normal(const Shape& shape, DType dtype) {
  Generator generator(4);
  return random_normal(shape, generator).to(dtype);
}

Tensor i32(const std::vector<int32_t>& values, Device device = kCuda) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, device);
}

// Both directions into a guarded output, against the CPU in f64 on the same numbers.
void check_rotation(const Tensor& x, const Tensor& cuda_x, int64_t rotated, RotaryPairs pairs, int64_t skipped) {
  const int64_t positions = x.size(1) + 3;
  const XPos form = block_recurrent_xpos(rotated, positions);
  const Tensor exact = xpos_tables(form, positions, DType::f64).keys;
  const Tensor table = xpos_tables(form, positions, DType::f32, kCuda).keys;
  for (const bool transposed : {false, true}) {
    Tensor expected = Tensor::empty(x.shape(), DType::f64);
    Guarded actual(x.shape(), x.dtype(), skipped);
    kernels::rotary(x.to(DType::f64), exact, pairs, {.offset = 2}, transposed, expected);
    kernels::rotary(cuda_x, table, pairs, {.offset = 2}, transposed, actual.tensor());
    const double rounding = x.dtype() == DType::bf16 ? 0x1p-8 : 4e-7;
    check_close(actual.tensor().to(kCpu).to(DType::f64), expected, rounding, 1e-6);
    actual.check_intact();
  }
}

}  // namespace

TEST_CASE("rotary agrees with the CPU for heads of any width, aligned or not", "[cuda][rotary]") {
  if (!cuda_or_skip()) return;
  for (const RotaryPairs pairs : {RotaryPairs::interleaved, RotaryPairs::halves}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const auto& [channels, rotated] : std::vector<std::pair<int64_t, int64_t>>{
               {1, 0}, {2, 2}, {7, 6}, {8, 8}, {16, 16}, {64, 64}, {64, 32}, {72, 16}, {100, 50}, {128, 128}}) {
        CAPTURE(static_cast<int>(pairs), dtype, channels, rotated);
        const Tensor wide = normal({3, 37, 5, 3 * channels}, dtype), cuda_wide = wide.to(kCuda);
        for (const int64_t part : {0, 1, 2}) {
          check_rotation(slice(wide, 3, part * channels, (part + 1) * channels),
                         slice(cuda_wide, 3, part * channels, (part + 1) * channels), rotated, pairs, part);
        }
      }
    }
  }
}

TEST_CASE("a replayed graph rotates and appends where the device says", "[cuda][rotary][cache]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    const Tensor k = normal({2, 1, 3, 64}, dtype), v = normal({2, 1, 3, 40}, dtype);
    const Tensor cuda_k = k.to(kCuda), cuda_v = v.to(kCuda);
    const Tensor table = rotary_table(rotary_frequencies(64), 100);
    const Tensor cuda_table = table.to(kCuda);
    Guarded k_cache({2, 50, 3, 64}, dtype), v_cache({2, 50, 3, 40}, dtype, 1);
    Tensor end = i32({1, 1});
    const Tensor first = i32({0, 2});
    const Graph graph(kCuda, [&] {
      const Tensor rotated = rotary(cuda_k, cuda_table, RotaryPairs::halves, {.first_key = first, .end_key = end});
      kernels::append_to_cache(rotated, cuda_v, end, k_cache.tensor(), v_cache.tensor());
    });
    Tensor exact_k = Tensor::full({2, 50, 3, 64}, std::nan(""), DType::f64);
    Tensor exact_v = Tensor::full({2, 50, 3, 40}, std::nan(""), DType::f64);
    for (const int place : {1, 2, 7, 50}) {
      end.fill(place);
      graph.replay();
      const Tensor exact =
          rotary(k.to(DType::f64), rotary_table(rotary_frequencies(64), 100, DType::f64), RotaryPairs::halves,
                 {.first_key = first.to(kCpu), .end_key = i32({place, place}, kCpu)});
      kernels::append_to_cache(exact, v.to(DType::f64), i32({place, place}, kCpu), exact_k, exact_v);
    }
    check_close(k_cache.tensor().to(kCpu).to(DType::f64), exact_k, dtype == DType::bf16 ? 0x1p-8 : 1e-6, 1e-6);
    check_close(v_cache.tensor().to(kCpu).to(DType::f64), exact_v, 0);
    k_cache.check_intact();
    v_cache.check_intact();
  }
}

TEST_CASE("positions outside of a table or a cache are errors where the host next waits", "[cuda][rotary][cache]") {
  if (!cuda_or_skip()) return;
  const Tensor x = normal({2, 3, 1, 8}, DType::f32).to(kCuda);
  const Tensor table = rotary_table(rotary_frequencies(8), 4, DType::f32, kCuda);
  CHECK_THROWS_WITH(rotary(x, table, RotaryPairs::halves, {.end_key = i32({3, 9})}).to_vector<float>(),
                    ContainsSubstring("rotary: position"));
  Tensor cache = Tensor::zeros({2, 6, 1, 8}, DType::f32, kCuda);
  kernels::append_to_cache(x, x, i32({3, 7}), cache, cache);
  CHECK_THROWS_WITH(cache.to_vector<float>(), ContainsSubstring("sequence 1 would end at 7 of 6 places"));
  kernels::append_to_cache(x, x, i32({3, 6}), cache, cache);
  check_identical(slice(select(cache.to(kCpu), 0, 1), 0, 3, 6), select(x.to(kCpu), 0, 1));
}

TEST_CASE("rotary gives the same bits every time", "[cuda][rotary]") {
  if (!cuda_or_skip()) return;
  const Tensor x = normal({4, 65, 3, 64}, DType::bf16).to(kCuda);
  const Tensor table = rotary_table(rotary_frequencies(64), 65, DType::f32, kCuda);
  check_repeats([&] { return Tensors{rotary(x, table, RotaryPairs::interleaved)}; });
}

}  // namespace monoid::test

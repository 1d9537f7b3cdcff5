#include "monoid/ops/rotary.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

constexpr int64_t kPositions = 9;

// The table belongs to the sample, as it belongs to a model.
OpSample rotated(const std::string& label, SampleMaker& make, const Shape& shape, int64_t channels, RotaryPairs pairs,
                 const RotaryPositions& at = {}) {
  const Tensor x = make.normal(shape);
  const DType dtype = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor table = xpos_tables(block_recurrent_xpos(channels, kPositions), kPositions, dtype, x.device()).queries;
  return {label, {x}, [=](const Tensors& in) -> Tensors { return {rotary(in[0], table, pairs, at)}; }};
}

std::vector<OpSample> rotary_samples(SampleMaker& make) {
  std::vector<OpSample> samples;
  for (const RotaryPairs pairs : {RotaryPairs::interleaved, RotaryPairs::halves}) {
    const std::string way = pairs == RotaryPairs::halves ? "halves" : "interleaved";
    const auto add = [&](const std::string& label, const Shape& shape, int64_t channels,
                         const RotaryPositions& at = {}) {
      samples.push_back(rotated(way + ", " + label, make, shape, channels, pairs, at));
    };
    const auto counts = [&](const Shape& shape, int64_t bound) { return make.integers(shape, bound).to(DType::i32); };
    add("2 x 5, 3 heads of 6", {2, 5, 3, 6}, 6);
    add("6 of 9 channels", {1, 4, 2, 9}, 6, {.offset = 3});
    add("16 of 32 channels", {1, 4, 2, 32}, 16);
    add("positions given", {2, 5, 1, 4}, 4, {.ids = counts({2, 5}, kPositions)});
    add("padded on the left", {3, 7, 1, 4}, 4, {.first_key = counts({3}, 7)});
    add("at the end of a cache", {3, 1, 1, 4}, 4, {.first_key = counts({3}, 4), .end_key = counts({3}, kPositions)});
    add("no time", {2, 0, 1, 4}, 4);
    add("no pairs", {1, 2, 1, 3}, 0);
    OpSample packed = rotated(way + ", a slice of a projection", make, {2, 4, 2, 12}, 4, pairs);
    packed.run = [inner = packed.run](const Tensors& in) { return inner({slice(in[0], 3, 5, 9)}); };
    samples.push_back(packed);
    OpSample apart = rotated(way + ", channels apart", make, {1, 4, 3, 2}, 4, pairs);
    apart.run = [inner = apart.run](const Tensors& in) { return inner({transpose(in[0], 1, 3)}); };
    samples.push_back(apart);
  }
  return samples;
}

}  // namespace

OpList rotary_ops() { return {{"rotary", rotary_samples}}; }

}  // namespace monoid

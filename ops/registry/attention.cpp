#include "monoid/ops/attention.h"

#include "monoid/ops/attention_cache.h"
#include "monoid/ops/registry.h"
#include "monoid/ops/rotary.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

using Mask = AttentionMask;

struct Sizes {
  int64_t batch, queries, keys, heads, key_heads, channels, value_channels;
};

Tensors operands(SampleMaker& make, const Sizes& n) {
  return {make.normal({n.batch, n.queries, n.heads, n.channels}),
          make.normal({n.batch, n.keys, n.key_heads, n.channels}),
          make.normal({n.batch, n.keys, n.key_heads, n.value_channels})};
}

Tensors both(const AttentionResult& result) { return {result.output, result.log_sum_exp}; }

OpSample masked(const std::string& label, SampleMaker& make, const Sizes& sizes, const Mask& mask) {
  return {label, operands(make, sizes),
          [=](const Tensors& in) { return both(attention_with_sums(in[0], in[1], in[2], {.mask = mask})); }};
}

// The output alone: the log-sum-exp of a row that sees no key is -inf, which has no differences.
OpSample output_of(const std::string& label, SampleMaker& make, const Sizes& sizes, const Mask& mask) {
  return {label, operands(make, sizes),
          [=](const Tensors& in) -> Tensors { return {attention(in[0], in[1], in[2], {.mask = mask})}; }};
}

// Sequences whose keys begin and end where random numbers say: some rows see nothing.
OpSample cut(const std::string& label, SampleMaker& make, const Sizes& sizes, const Mask& mask) {
  OpSample sample{
      label, operands(make, sizes), [=](const Tensors& in) -> Tensors {
        return {attention(in[0], in[1], in[2], {.mask = mask, .scale = 0.7, .first_key = in[3], .end_key = in[4]})};
      }};
  for (int i = 0; i < 2; ++i) {
    sample.inputs.push_back(make.integers({sizes.batch}, sizes.keys + 1).to(DType::i32));
  }
  return sample;
}

OpSample dropped(const std::string& label, SampleMaker& make, const Sizes& sizes, const Mask& mask,
                 double probability) {
  return {label, operands(make, sizes), [=](const Tensors& in) {
            Generator generator(7);  // of its own for every call, so that every call draws the same mask
            return both(attention_with_sums(in[0], in[1], in[2],
                                            {.mask = mask, .dropout = probability, .generator = &generator}));
          }};
}

std::vector<OpSample> attention_samples(SampleMaker& make) {
  return {
      masked("causal, 2 x 5, 2 heads", make, {2, 5, 5, 2, 2, 3, 4}, Mask::causal()),
      masked("causal, the last 3 queries of 7 keys, 4 heads on 2", make, {1, 3, 7, 4, 2, 2, 2}, Mask::causal()),
      output_of("causal, more queries than keys", make, {1, 13, 4, 1, 1, 2, 3}, Mask::causal()),
      masked("causal, several tiles", make, {1, 70, 70, 1, 1, 2, 1}, Mask::causal()),
      masked("full, one key head, several tiles", make, {1, 19, 67, 3, 1, 2, 2}, Mask::full()),
      masked("full, one query", make, {2, 1, 6, 2, 1, 3, 2}, Mask::full()),
      masked("window 3", make, {1, 11, 11, 2, 1, 2, 2}, Mask::window(3)),
      masked("window 1, fewer queries than keys", make, {1, 9, 12, 1, 1, 2, 2}, Mask::window(1)),
      masked("blocks of 3, the last one partial", make, {1, 11, 11, 2, 1, 2, 2}, Mask::blocks(3)),
      cut("causal, padded left and right", make, {4, 9, 9, 1, 1, 2, 2}, Mask::causal()),
      cut("blocks of 4, padded left and right", make, {4, 3, 10, 4, 2, 2, 2}, Mask::blocks(4)),
      cut("full, padded left and right, one query", make, {4, 1, 6, 2, 2, 2, 2}, Mask::full()),
      dropped("dropout 0.3, causal", make, {2, 10, 10, 2, 1, 2, 2}, Mask::causal(), 0.3),
      dropped("dropout 0.5, one query of 7 keys", make, {2, 1, 7, 2, 1, 2, 2}, Mask::full(), 0.5),
      dropped("dropout 1", make, {1, 3, 3, 1, 1, 2, 2}, Mask::full(), 1),
      {"parts of a packed projection, time last in memory",
       {make.normal({2, 6, 4, 9})},
       [](const Tensors& in) -> Tensors {
         // [batch, head, time, channels of q, k and v]: strided, with adjacent channels.
         const Tensor packed = transpose(in[0], 1, 2);
         return {attention(slice(packed, 3, 0, 3), slice(slice(packed, 3, 3, 6), 2, 0, 2),
                           slice(slice(packed, 3, 6, 9), 2, 0, 2))};
       }},
      {"heads of a transposed tensor, whose channels are apart",
       {make.normal({1, 3, 2, 9}), make.normal({1, 9, 2, 3}), make.normal({1, 9, 2, 3})},
       [](const Tensors& in) -> Tensors { return {attention(transpose(in[0], 1, 3), in[1], in[2])}; }},
      output_of("no keys", make, {2, 3, 0, 2, 1, 2, 2}, Mask::causal()),
      output_of("no queries", make, {2, 0, 3, 2, 1, 2, 2}, Mask::causal()),
  };
}

OpSample packed(const std::string& label, SampleMaker& make, const Shape& shape, int64_t heads, int64_t key_heads,
                const Mask& mask, const AttentionRotary& rotary = {}) {
  return {label, {make.normal(shape)}, [=](const Tensors& in) -> Tensors {
            return {packed_attention(in[0], heads, key_heads, {.mask = mask}, rotary)};
          }};
}

std::vector<OpSample> packed_samples(SampleMaker& make) {
  const Tensor like = make.normal({1});
  const DType dtype = like.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor table = rotary_table(rotary_frequencies(4), 9, dtype, like.device());
  const XPosTables scaled = xpos_tables(block_recurrent_xpos(2, 9), 9, dtype, like.device());
  std::vector<OpSample> samples{
      packed("causal, 2 heads of 3", make, {2, 5, 18}, 2, 2, Mask::causal()),
      packed("window 3, 4 heads on 2", make, {1, 9, 16}, 4, 2, Mask::window(3)),
      packed("one table", make, {2, 7, 24}, 4, 1, Mask::causal(), {table, table, RotaryPairs::halves, {.offset = 2}}),
      packed("xPos, half of the channels", make, {1, 9, 12}, 1, 1, Mask::blocks(4),
             {scaled.queries, scaled.keys, RotaryPairs::interleaved}),
      packed("no time", make, {2, 0, 18}, 2, 2, Mask::causal()),
  };
  OpSample sliced =
      packed("a slice of something wider", make, {2, 4, 20}, 1, 1, Mask::causal(), {table, table, RotaryPairs::halves});
  sliced.run = [inner = sliced.run](const Tensors& in) { return inner({slice(in[0], 2, 1, 13)}); };
  samples.push_back(sliced);
  return samples;
}

OpSample appended(const std::string& label, SampleMaker& make, const Shape& rows, int64_t capacity) {
  OpSample sample{label, {make.normal(rows), make.normal(rows.with(3, 3))}, [=](const Tensors& in) -> Tensors {
                    const Tensor k = in[0].detach(), v = in[1].detach();
                    Tensor k_cache = Tensor::full(k.shape().with(1, capacity), 7, k.dtype(), k.device());
                    Tensor v_cache = Tensor::full(v.shape().with(1, capacity), 8, v.dtype(), v.device());
                    append_to_cache(k, v, in[2], k_cache, v_cache);
                    return {k_cache, v_cache};
                  }};
  Tensor ends = make.integers({rows[0]}, capacity - rows[1] + 1).to(kCpu).to(DType::i32);
  for (int64_t i = 0; i < rows[0]; ++i) ends.data<int32_t>()[i] += static_cast<int32_t>(rows[1]);
  sample.inputs.push_back(ends.to(sample.inputs[0].device()));
  return sample;
}

std::vector<OpSample> cache_samples(SampleMaker& make) {
  return {appended("3 x 2 rows into 7 places", make, {3, 2, 2, 5}, 7),
          appended("one row of 16 bytes a head", make, {2, 1, 3, 8}, 4), appended("no rows", make, {2, 0, 3, 8}, 4)};
}

}  // namespace

OpList attention_ops() {
  return {{"attention", attention_samples},
          {"packed_attention", packed_samples},
          {"append_to_cache", cache_samples, false}};
}

}  // namespace monoid

#include "monoid/layers/causal_full_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "monoid/ops/attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/scan.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/ops/softmax.h"

namespace monoid {
namespace {

constexpr int64_t kQueriesAtOnce = 256;
constexpr double kLeastProduct = 1e-10;

const CausalFullAttentionOptions& validated(const CausalFullAttentionOptions& options) {
  check(options.heads >= 1 && options.head_channels >= 1, "CausalFullAttention: ", options.heads, " heads of ",
        options.head_channels, " channels, wanted at least one of each");
  check(options.head_channels % 2 == 0 || !(options.rotary || options.relative_positions),
        "CausalFullAttention: heads of ", options.head_channels,
        " channels, wanted an even number: positions belong to pairs of channels");
  return options;
}

// 0, 1, ..., count - 1 in f32, made on the device: a recorded graph cannot ask the host.
Tensor counted(int64_t count, Device device) {
  const Tensor ones = Tensor::ones({1, count, 1}, DType::f32, device);
  return reshape(linear_scan(ones, ones).states, {count}) - 1;
}

// Softmax attention with its weights in memory, a block of queries at a time. Data-dependent positions make scores of
// 1e9, to which a log-sum-exp in f32 is no key: attention() would make other weights in backward than it had.
Tensor attention_in_memory(const Tensor& queries, const Tensor& keys, const Tensor& values, const Tensor& first_key,
                           const Tensor& end_key) {
  const auto heads_first = [](const Tensor& x) { return transpose(x, 1, 2); };
  const auto per_sequence = [](const Tensor& counts) { return reshape(cast(counts, DType::f32), {-1, 1, 1, 1}); };
  const int64_t time = queries.size(1), before = keys.size(1) - time;
  const Tensor hidden = Tensor::full({}, -std::numeric_limits<double>::infinity(), queries.dtype(), queries.device());
  const Tensor q = heads_first(queries * (1 / std::sqrt(static_cast<double>(queries.size(3))))),
               v = heads_first(values);
  const Tensor k = transpose(heads_first(keys), 2, 3), places = counted(keys.size(1), queries.device());
  Tensors blocks;
  for (int64_t begin = 0; begin < time; begin += kQueriesAtOnce) {
    const int64_t end = std::min(begin + kQueriesAtOnce, time), seen = end_key.defined() ? k.size(3) : before + end;
    const Tensor key = slice(places, 0, 0, seen), query = reshape(slice(places, 0, begin, end), {1, 1, -1, 1});
    const Tensor own = end_key.defined() ? query + (per_sequence(end_key) - static_cast<double>(time))
                                         : query + static_cast<double>(before);
    Tensor scores = where(greater(key, own), hidden, matmul(slice(q, 2, begin, end), slice(k, 3, 0, seen)));
    if (first_key.defined()) scores = where(less(key, per_sequence(first_key)), hidden, scores);
    blocks.push_back(matmul(softmax(scores), slice(v, 2, 0, seen)));
  }
  return heads_first(time > 0 ? concat(blocks, 2) : q);
}

}  // namespace

int64_t CausalFullAttentionOptions::parameters() const {
  const int64_t projections = 3 + (relative_positions ? 1 : 0) + (swish_gating ? 1 : 0) + 1;
  return projections * channels * inner() + channels;
}

CausalFullAttention::CausalFullAttention(const CausalFullAttentionOptions& options, Generator& init)
    : options_(validated(options)),
      to_heads_(options.channels, 3 * options.inner(), Bias::none, init),
      to_a_(options.relative_positions
                ? std::optional<Linear>(std::in_place, options.channels, options.inner(), Bias::none, init)
                : std::nullopt),
      to_gates_(options.swish_gating
                    ? std::optional<Linear>(std::in_place, options.channels, options.inner(), Bias::none, init)
                    : std::nullopt),
      from_heads_(options.inner(), options.channels, Bias::learned, init),
      rotary_({.rotated = options.head_channels, .pairs = RotaryPairs::interleaved}) {
  if (options.rotary) frequencies_ = rotary_frequencies(options.head_channels).to(DType::f32);
}

// p [batch, time, head, pair, 1]: GateLoop along the pairs of each head, side by side for all of them, that starts from
// 1, adds nothing and reads its state out as it is.
Tensor CausalFullAttention::product(const Tensor& x) const {
  const int64_t batch = x.size(0), time = x.size(1), heads = options_.heads, pairs = options_.head_channels / 2;
  const int64_t all = batch * time * heads;
  const auto zeros = [&](const Shape& shape) { return Tensor::zeros(shape, x.dtype(), x.device()); };
  const Tensor z = reshape(to_a_->forward(x), {all, pairs, 2});
  const Tensor idle = zeros({1, pairs, 3 * all}), one = zeros({1, all, 1, 1, 2});
  slice(idle, 2, 0, all).fill(1);
  select(one, 4, 0).fill(1);
  const Tensor product =
      gate_loop_scan(idle, contiguous(unsqueeze(transpose(z, 0, 1), 0)), options_.recurrence, one).output;
  const Tensor p = clamp(product, kLeastProduct, std::numeric_limits<double>::infinity());
  return reshape(transpose(squeeze(p, 0), 0, 1), {batch, time, heads, pairs, 1});
}

// Without softmax attention is a recurrence: S_t = S_{t-1} + k_t v_t^T, y_t = q_t^T S_t.
Tensor CausalFullAttention::linear(const Tensors& qkv, StateUpdate& state, const std::string& name) const {
  const int64_t batch = qkv[0].size(0), time = qkv[0].size(1), heads = options_.heads, size = options_.head_channels;
  const Tensor unused = Tensor::zeros({batch, time, heads, 2}, qkv[0].dtype(), qkv[0].device());
  const GateLoopResult scan =
      gate_loop_scan(state.padding().zeroed(concat(qkv, 2)), unused, {.transition = Transition::one},
                     state.before(name + ".state", {batch, heads, size, size, 2}));
  state.after(name + ".state", scan.final);
  // Positions are counted where a state has a cache.
  const auto mark = [&](const Tensor& x) { return reshape(slice(x, 2, 0, 1), {batch, time, 1, 1}); };
  if (options_.rotary) state.append(name, mark(qkv[1]), mark(qkv[2]));
  return scan.output * (1 / std::sqrt(static_cast<double>(size)));
}

Tensor CausalFullAttention::forward(const Tensor& x, StateUpdate& state, const std::string& name,
                                    const Tensor& residual) const {
  const int64_t batch = x.size(0), time = x.size(1), inner = options_.inner();
  const Shape in_heads{batch, time, options_.heads, options_.head_channels};
  const Tensors packed = split(to_heads_.forward(x), 2, {inner, inner, inner});
  Tensor queries = reshape(packed[0], in_heads), keys = reshape(packed[1], in_heads);
  if (options_.rotary) {
    const RotaryEmbedding::Turn turn = rotary_.turn(state, x, frequencies_);
    queries = turn(queries);
    keys = turn(keys);
  }
  if (to_a_ && options_.recurrence.transition != Transition::one) {
    const Shape in_pairs{batch, time, options_.heads, options_.head_channels / 2, 2};
    const Tensor p = product(x);
    queries = reshape(reshape(queries, in_pairs) * p, in_heads);
    keys = reshape(reshape(keys, in_pairs) / p, in_heads);
  }
  const Shape flat{batch, time, inner};
  Tensor mixed;
  if (options_.softmax) {
    const auto [all_keys, all_values] = state.append(name, keys, reshape(packed[2], in_heads));
    const Tensor first_key = state.first_key(), end_key = state.end_key();
    mixed = reshape(to_a_ ? attention_in_memory(queries, all_keys, all_values, first_key, end_key)
                          : attention(queries, all_keys, all_values, {.first_key = first_key, .end_key = end_key}),
                    flat);
  } else {
    mixed = linear({reshape(queries, flat), reshape(keys, flat), packed[2]}, state, name);
  }
  if (to_gates_) mixed = silu_gated(mixed, to_gates_->forward(x));
  return from_heads_.forward(mixed, residual);
}

void CausalFullAttention::visit(Visitor& visitor) {
  rotary_.look_again();
  visitor.child("to_heads", to_heads_);
  if (to_a_) visitor.child("to_a", *to_a_);
  if (to_gates_) visitor.child("to_gates", *to_gates_);
  visitor.child("from_heads", from_heads_);
  if (frequencies_.defined()) visitor.buffer("frequencies", frequencies_);
}

}  // namespace monoid

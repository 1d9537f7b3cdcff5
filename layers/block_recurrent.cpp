#include "monoid/layers/block_recurrent.h"

#include <algorithm>
#include <utility>

#include "monoid/ops/attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

StateContainerOptions container_of(const BlockRecurrentOptions& options) {
  return {.channels = options.channels,
          .heads = options.heads,
          .head_channels = options.head_channels,
          .vectors = options.vectors};
}

// The keys and values of states; what `writes` them finds the rest of the view.
const Tensor& viewed(const StateContainer& container, BlockMemory& memory, bool writes) {
  if (writes && !memory.writing) memory.writing = container.writing();
  memory.view = container.view(memory.states, writes ? &*memory.writing : nullptr);
  return memory.view->keys_values;
}

}  // namespace

int64_t BlockRecurrentOptions::parameters() const {
  const int64_t inner = heads * head_channels, pair = 2 * head_channels;
  return channels * (inner + pair) + inner * (1 + reads) * channels + (norms_queries ? pair : 0) +
         (vectors > 0 ? container_of(*this).parameters() : 0) +
         (compresses() ? pair * head_channels * factor + pair : 0);
}

BlockSpan BlockSpan::block(int64_t index) const {
  BlockSpan one = *this;
  one.blocks = 1;
  one.fresh = fresh && index == 0;
  one.carried = carried || index + 1 < blocks;
  one.first_key = slice(first_key, 1, index, index + 1);
  return one;
}

BlockRecurrentAttention::BlockRecurrentAttention(const BlockRecurrentOptions& options, Generator& init)
    : options_(options),
      to_query_(options.channels, options.heads * options.head_channels, Bias::none, init),
      to_key_value_(options.channels, 2 * options.head_channels, Bias::none, init),
      to_out_(options.heads * options.head_channels * (1 + options.reads), options.channels, Bias::none, init) {
  if (options.norms_queries) norm_.emplace(options.head_channels);
  if (options.vectors > 0) container_.emplace(container_of(options), init);
  if (options.compresses()) {
    const int64_t pair = 2 * options.head_channels, seen = options.head_channels * options.factor;
    compress_weight_ = fan_in_parameter({pair, options.head_channels, options.factor}, seen, init);
    compress_bias_ = fan_in_parameter({pair}, seen, init);
  }
}

BlockMemory BlockRecurrentAttention::recall(const StateUpdate& state, const std::string& name,
                                            const Tensor& like) const {
  const int64_t batch = like.size(0), pair = 2 * options_.head_channels;
  BlockMemory memory{.past = state.before(name + ".past", {batch, options_.memory(), pair}),
                     .block = state.before(name + ".block", {batch, options_.width, pair}),
                     .states = {},
                     .view = {},
                     .writing = {}};
  if (container_) {
    memory.states = state.before(name + ".states", {batch, options_.vectors, options_.channels});
    if (!memory.states.defined()) memory.states = container_->beginning(batch);
  }
  return memory;
}

void BlockRecurrentAttention::keep(const BlockMemory& memory, StateUpdate& state, const std::string& name,
                                   const Tensor& like) const {
  state.after(name + ".past", held(memory.past, options_.memory(), like));
  state.after(name + ".block", held(memory.block, options_.width, like));
  if (container_) state.after(name + ".states", memory.states);
}

// Rows that are remembered, or zeros.
Tensor BlockRecurrentAttention::held(const Tensor& rows, int64_t count, const Tensor& like) const {
  return rows.defined() ? rows
                        : Tensor::zeros({like.size(0), count, 2 * options_.head_channels}, like.dtype(), like.device());
}

// Whether the tokens stand in one stretch behind the memory, so that a mask is all that blocks need.
bool BlockRecurrentAttention::one_stretch(const BlockSpan& span) const {
  return options_.compressed == 0 && !span.places.defined() &&
         options_.memory() + span.blocks * options_.width <= span.tables.queries.size(1);
}

// A convolution over keys, and one over values, that takes `factor` of them at a time: blocks [batch, block, width, 2 *
// head_channels] -> [batch, block * fresh_compressed, 2 * head_channels]. What is left over is the oldest of a block.
Tensor BlockRecurrentAttention::compress(const Tensor& blocks) const {
  const int64_t batch = blocks.size(0), each = options_.fresh_compressed(), channels = options_.head_channels;
  const int64_t rows = blocks.size(1) * each, used = each * options_.factor;
  const Tensor newest = slice(blocks, 2, options_.width - used, options_.width);
  if (!options_.compresses() || each == 0) return reshape(newest, {batch, rows, 2 * channels});
  const std::vector<int64_t> halves{channels, channels};
  const Tensors grouped = split(reshape(newest, {batch, rows, options_.factor, 2 * channels}), 3, halves);
  const Tensors weights = split(transpose(compress_weight_, 1, 2), 0, halves),
                biases = split(compress_bias_, 0, halves);
  const int64_t width = options_.factor * channels;
  Tensors compressed;
  for (size_t i = 0; i < halves.size(); ++i)
    compressed.push_back(
        linear(reshape(grouped[i], {batch, rows, width}), reshape(weights[i], {channels, width}), biases[i]));
  return concat(compressed, 2);
}

// What is remembered in front of each block, [batch, block, memory, 2 * head_channels]; with blocks that end, `memory`
// is what will be in front of the next.
Tensor BlockRecurrentAttention::move_on(const Tensor& now, const BlockSpan& span, BlockMemory& memory) const {
  const Tensor past = held(memory.past, options_.memory(), now);
  const int64_t blocks = span.blocks, queue = options_.compressed, each = options_.fresh_compressed();
  const bool ends = span.writes();
  if (blocks == 1 && !ends) return unsqueeze(past, 1);
  const auto first = [&](const Tensor& x, int axis, int64_t count) { return slice(x, axis, 0, count); };
  Tensor before = unsqueeze(slice(past, 1, queue, options_.memory()), 1);
  if (blocks > 1) before = concat({before, first(now, 1, blocks - 1)}, 1);
  Tensor next = select(now, 1, blocks - 1), seen = before;
  if (queue > 0) {
    const Tensor compressed = concat({first(past, 1, queue), compress(before)}, 1);
    Tensors queues;
    for (int64_t block = 0; block < blocks; ++block)
      queues.push_back(slice(compressed, 1, block * each, block * each + queue));
    seen = concat({stack(queues, 1), before}, 2);
    next = concat({slice(compressed, 1, blocks * each, blocks * each + queue), next}, 1);
  }
  if (ends) memory.past = span.ended.defined() ? where(span.ended, next, past) : next;
  return seen;
}

// The keys and values of the states in front of each block, [batch * block, vectors, 2 * head_channels].
Tensor BlockRecurrentAttention::write_states(const Tensor& now, const BlockSpan& span, BlockMemory& memory) const {
  Tensors before;
  for (int64_t block = 0; block < span.blocks; ++block) {
    const bool writes = block + 1 < span.blocks || span.writes();
    if (!memory.view) viewed(*container_, memory, writes);
    const StateContainer::View view = *std::exchange(memory.view, {});
    before.push_back(view.keys_values);
    if (!writes) break;
    const Tensor written = container_->write(view, select(now, 1, block), *memory.writing);
    memory.states = span.ended.defined() ? where(span.ended, written, memory.states) : written;
  }
  if (span.blocks == 1) return before[0];
  return reshape(stack(before, 1), {now.size(0) * span.blocks, options_.vectors, 2 * options_.head_channels});
}

// What queries [batch, time, heads * head_channels] find among the keys and values of the memory and of `seen` [batch,
// block, time, 2 * head_channels].
Tensor BlockRecurrentAttention::look(const Tensor& queries, const Tensor& now, const Tensor& seen,
                                     const BlockSpan& span, BlockMemory& memory) const {
  const int64_t batch = seen.size(0), own = options_.memory(), channels = options_.head_channels;
  const bool whole = one_stretch(span), alone = whole && span.fresh;
  Tensor all = seen, first_key;
  if (whole) {
    all = reshape(seen, {batch, 1, seen.size(1) * seen.size(2), seen.size(3)});
    if (!alone) all = concat({unsqueeze(held(memory.past, own, seen), 1), all}, 2);
    if (!alone) first_key = reshape(slice(span.first_key, 1, 0, 1), {batch});
  } else {
    all = concat({move_on(now, span, memory), seen}, 2);
    first_key = reshape(span.first_key, {batch * span.blocks});
  }
  const int64_t parts = batch * all.size(1);
  const Tensors halves = split(reshape(all, {parts, all.size(2), 1, 2 * channels}), 3, {channels, channels});
  Tensor q = reshape(queries, {parts, batch * queries.size(1) / std::max<int64_t>(1, parts), options_.heads, channels});
  Tensor k = halves[0];
  if (norm_) {
    q = norm_->queries(q);
    k = norm_->keys(k);
  }
  q = rotary(q, span.tables.queries, RotaryPairs::halves, {.offset = own + span.phase, .end_key = span.end_key});
  k = rotary(k, span.tables.keys, RotaryPairs::halves, {.offset = alone ? own : 0});
  const Tensor found = attention(q, k, halves[1],
                                 {.mask = whole ? AttentionMask::blocks(options_.width) : AttentionMask::causal(),
                                  .scale = norm_ ? std::optional(norm_->scale()) : std::nullopt,
                                  .first_key = first_key,
                                  .end_key = span.end_key});
  return reshape(found, queries.shape());
}

Tensor BlockRecurrentAttention::forward(const Tensor& x, const BlockSpan& span, BlockMemory& memory,
                                        const std::vector<StateReading>& readings, const Tensor& residual) const {
  const int64_t batch = x.size(0), width = options_.width, inner = options_.heads * options_.head_channels;
  const int64_t pair = 2 * options_.head_channels;
  std::vector<const Linear*> projections{&to_query_, &to_key_value_};
  for (const StateReading& reading : readings) projections.push_back(&reading.container->read_query());

  // Where nothing else wants keys and values, attention takes the projection as it is.
  const bool packs = one_stretch(span) && span.fresh && !norm_ && !container_ && readings.empty();
  Tensors projected, found;
  if (packs) {
    const Tensor packed = linear(x, joined_weights(projections));
    found.push_back(packed_attention(packed, options_.heads, 1, {.mask = AttentionMask::blocks(width)},
                                     {.queries = span.tables.queries,
                                      .keys = span.tables.keys,
                                      .pairs = RotaryPairs::halves,
                                      .at = {.offset = options_.memory()}}));
    projected = {Tensor(), span.carried ? slice(packed, 2, inner, inner + pair) : Tensor()};
  } else {
    projected = forward_together(projections, x);
  }

  // The blocks with what is new, and what of them is seen.
  Tensor now, seen;
  if (projected[1].defined()) {
    const Tensor fresh = reshape(projected[1], {batch, span.blocks, span.tokens, pair});
    now = seen = fresh;
    if (span.places.defined()) {
      const Tensor added = select(fresh, 1, 0);
      const Tensor block = held(memory.block, width, fresh);
      now = unsqueeze(where(span.places, span.tokens == 1 ? added : pad(added, 1, 0, width - span.tokens), block), 1);
      if (span.end_key.defined()) seen = now;
    } else if (span.phase > 0) {
      const Tensor begun = slice(held(memory.block, width, fresh), 1, 0, span.phase);
      now = seen = concat({unsqueeze(begun, 1), fresh}, 2);
    }
  }
  if (!packs) found.push_back(look(projected[0], now, seen, span, memory));
  if (one_stretch(span) && span.writes()) memory.past = contiguous(select(now, 1, span.blocks - 1));

  const Tensor own_states = container_ ? write_states(now, span, memory) : Tensor();
  for (size_t i = 0; i < readings.size(); ++i) {
    const auto& [container, owner] = readings[i];
    const bool own = container == this->container();
    found.push_back(container->read(projected[2 + i], own ? own_states : viewed(*container, *owner, span.writes())));
  }

  if (span.carried) {
    const Tensor block = select(now, 1, 0);
    if (span.places.defined()) {
      memory.block = span.ends ? where(span.ended, Tensor::scalar(0, block.dtype(), block.device()), block) : block;
    } else {
      memory.block = span.ends ? Tensor() : pad(block, 1, 0, width - now.size(2));
    }
  }
  return to_out_.forward(found.size() == 1 ? found[0] : concat(found, 2), residual);
}

void BlockRecurrentAttention::visit(Visitor& visitor) {
  visitor.child("to_query", to_query_);
  visitor.child("to_key_value", to_key_value_);
  if (norm_) visitor.child("norm", *norm_);
  if (container_) visitor.child("state", *container_);
  if (compress_weight_.defined()) {
    visitor.parameter("compress.weight", compress_weight_);
    visitor.parameter("compress.bias", compress_bias_);
  }
  visitor.child("to_out", to_out_);
}

}  // namespace monoid

#include "monoid/models/block_recurrent.h"

#include <algorithm>
#include <utility>

#include "monoid/layers/dropout.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

std::string layer_name(size_t index) { return str("layers.", index); }

}  // namespace

std::vector<BlockRecurrentConfig::Route> BlockRecurrentConfig::routes() const {
  const std::vector<int64_t> writes = recurrent_layers.value_or(std::vector<int64_t>{depth / 2});
  const std::vector<int64_t> reads = read_recurrent_layers.value_or(writes);
  std::vector<Route> routes;
  for (size_t i = 0; i < std::min(writes.size(), reads.size()); ++i) routes.push_back({writes[i] - 1, reads[i] - 1});
  std::ranges::sort(routes, {}, &Route::write);
  return routes;
}

BlockRecurrentOptions BlockRecurrentConfig::attention(int64_t layer) const {
  const std::vector<Route> all = routes();
  const bool writes = std::ranges::find(all, layer, &Route::write) != all.end();
  return {.channels = dim,
          .heads = heads,
          .head_channels = dim_head,
          .width = block_width,
          .norms_queries = all_layers_qk_rmsnorm || writes,
          .vectors = writes ? num_state_vectors.value_or(block_width) : 0,
          .reads = std::ranges::count(all, layer, &Route::read),
          .compressed = use_compressed_mem ? block_width / 2 : 0,
          .factor = compressed_mem_factor};
}

int64_t BlockRecurrentConfig::parameters() const {
  int64_t all = 2 * num_tokens * dim + dim;
  for (int64_t layer = 0; layer < depth; ++layer)
    all += 2 * dim + attention(layer).parameters() + 3 * dim * feed_forward_inner();
  return all;
}

void BlockRecurrentConfig::visit(ConfigVisitor& visitor) {
  visitor.key("num_tokens", num_tokens);
  visitor.key("dim", dim);
  visitor.key("depth", depth);
  visitor.key("dim_head", dim_head);
  visitor.key("heads", heads);
  visitor.key("all_layers_qk_rmsnorm", all_layers_qk_rmsnorm);
  visitor.key("ff_mult", ff_mult);
  visitor.key("max_seq_len", max_seq_len);
  visitor.key("block_width", block_width);
  visitor.key("recurrent_layers", recurrent_layers);
  visitor.key("read_recurrent_layers", read_recurrent_layers);
  visitor.key("num_state_vectors", num_state_vectors);
  visitor.key("ignore_index", ignore_index);
  visitor.key("use_compressed_mem", use_compressed_mem);
  visitor.key("compressed_mem_factor", compressed_mem_factor);
  visitor.key("xl_memories_dropout", xl_memories_dropout);
  visitor.key("state_dropout", state_dropout);
  visitor.key("use_flash_attn", use_flash_attn);
}

void BlockRecurrentConfig::validate() const {
  check_range(kType, "num_tokens", num_tokens, 1);
  check_range(kType, "dim", dim, 1);
  check_range(kType, "depth", depth, 1);
  check_range(kType, "dim_head", dim_head, 2);
  check_range(kType, "heads", heads, 1);
  check_range(kType, "block_width", block_width, 1);
  check_range(kType, "compressed_mem_factor", compressed_mem_factor, 1);
  check_width(kType, "heads * dim_head", static_cast<double>(heads) * static_cast<double>(dim_head));
  check_width(kType, "dim * ff_mult * 2 / 3", static_cast<double>(dim) * ff_mult * 2 / 3);
  check(dim_head % 2 == 0, kType, ": dim_head is ", dim_head,
        ", wanted an even number: rotary positions turn pairs of channels");
  check(max_seq_len >= 1 && max_seq_len % block_width == 0, kType, ": max_seq_len is ", max_seq_len,
        ", wanted a multiple of block_width, ", block_width);
  check(!use_compressed_mem || block_width >= 2, kType, ": use_compressed_mem wants a block_width of 2 or more");
  if (num_state_vectors) check_range(kType, "num_state_vectors", *num_state_vectors, 1);
  check(xl_memories_dropout >= 0 && xl_memories_dropout <= 1, kType, ": xl_memories_dropout is ", xl_memories_dropout,
        ", wanted 0 to 1");
  check(state_dropout >= 0 && state_dropout <= 1, kType, ": state_dropout is ", state_dropout, ", wanted 0 to 1");
  const std::vector<int64_t> writes = recurrent_layers.value_or(std::vector<int64_t>{depth / 2});
  const std::vector<int64_t> reads = read_recurrent_layers.value_or(writes);
  check(reads.size() == writes.size(), kType, ": read_recurrent_layers has ", reads.size(),
        " layers, wanted one for each of the ", writes.size(), " recurrent_layers");
  for (size_t i = 0; i < writes.size(); ++i) {
    check(writes[i] >= 1 && writes[i] <= depth, kType, ": recurrent_layers has ", writes[i],
          ", and the layers are 1 to ", depth);
    check(std::ranges::count(writes, writes[i]) == 1, kType, ": recurrent_layers has ", writes[i], " more than once");
    check(reads[i] >= 1 && reads[i] <= writes[i], kType, ": the state of layer ", writes[i], " is read in layer ",
          reads[i], ", wanted one from 1 to ", writes[i]);
  }
}

BlockRecurrent::Layer::Layer(const BlockRecurrentConfig& config, int64_t index, Generator& init)
    : attention_norm(config.dim, Bias::none),
      attention(config.attention(index), init),
      feed_forward_norm(config.dim, Bias::none),
      feed_forward(config.dim, config.feed_forward_inner(), init) {
  for (const auto& [write, read] : config.routes()) {
    if (read == index) reads.push_back(write);
  }
}

void BlockRecurrent::Layer::visit(Visitor& visitor) {
  visitor.child("attention_norm", attention_norm);
  visitor.child("attention", attention);
  visitor.child("feed_forward_norm", feed_forward_norm);
  visitor.child("feed_forward", feed_forward);
}

BlockRecurrent::BlockRecurrent(const BlockRecurrentConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.num_tokens, config.dim, init),
      layers_([&] {
        std::vector<Layer> layers;
        for (int64_t index = 0; index < config.depth; ++index) layers.emplace_back(config, index, init);
        return layers;
      }()),
      norm_(config.dim, Bias::none),
      to_logits_(config.dim, config.num_tokens, Bias::none, init),
      tables_(config.attention(0)) {
  // From where a state is read to where it is written, layers go through a block together.
  const auto routes = config.routes();
  for (int64_t first = 0; first < config.depth;) {
    int64_t end = first + 1;
    for (bool grown = true; std::exchange(grown, false);) {
      for (const auto& [write, read] : routes) {
        if (read >= end || write < end) continue;
        end = write + 1;
        grown = true;
      }
    }
    groups_.push_back({first, end});
    first = end;
  }
}

Tensor BlockRecurrent::through(const Group& group, Tensor x, const BlockSpan& span,
                               std::vector<BlockMemory>& memories) const {
  for (auto index = static_cast<size_t>(group.first); index < static_cast<size_t>(group.end); ++index) {
    const Layer& layer = layers_[index];
    std::vector<StateReading> readings;
    for (const int64_t write : layer.reads) {
      const auto owner = static_cast<size_t>(write);
      readings.push_back({layers_[owner].attention.container(), &memories[owner]});
    }
    NormAndSum stream = layer.attention_norm.add(x);
    stream = layer.feed_forward_norm.add(
        layer.attention.forward(stream.normed, span, memories[index], readings, stream.sum));
    x = layer.feed_forward.forward(stream.normed, stream.sum);
  }
  return x;
}

Tensor BlockRecurrent::run(const Tensor& tokens, const BlockSpan& span, std::vector<BlockMemory>& memories) const {
  Tensor x = tokens;
  for (const Group& group : groups_) {
    if (span.blocks == 1 || group.end == group.first + 1) {
      x = through(group, x, span, memories);
      continue;
    }
    Tensors blocks;
    for (int64_t block = 0; block < span.blocks; ++block) {
      const Tensor piece = slice(x, 1, block * span.tokens, (block + 1) * span.tokens);
      blocks.push_back(through(group, contiguous(piece), span.block(block), memories));
    }
    x = concat(blocks, 1);
  }
  return x;
}

Tensor BlockRecurrent::forward(const Tensor& tokens, State* state, Generator* dropout, const Tensor& padding) {
  StateUpdate update(BlockRecurrentConfig::kType, state, tokens, padding);
  const BlockTables::Tables& tables = tables_.of(embedding_.weight());
  BlockReader reader(BlockRecurrentConfig::kType, config_.attention(0), tables, update, state, tokens);
  Tensor x = embedding_.forward(reader.shifted_left(tokens));
  std::vector<BlockMemory> memories;
  for (size_t i = 0; i < layers_.size(); ++i) memories.push_back(layers_[i].attention.recall(update, layer_name(i), x));
  if (dropout && state && !state->empty()) {
    if (config_.xl_memories_dropout > 0) reader.forget(coin(config_.xl_memories_dropout, tokens.device(), *dropout));
    if (config_.state_dropout > 0) {
      const Tensor forgotten = coin(config_.state_dropout, tokens.device(), *dropout);
      for (size_t i = 0; i < layers_.size(); ++i) {
        if (const StateContainer* container = layers_[i].attention.container())
          memories[i].states = where(forgotten, container->beginning(x.size(0)), memories[i].states);
      }
    }
  }

  Tensors read;
  while (!reader.done()) {
    const BlockSpan span = reader.next();
    const int64_t end = span.begin + span.blocks * span.tokens;
    const bool all = span.begin == 0 && end == x.size(1);
    read.push_back(run(all ? x : contiguous(slice(x, 1, span.begin, end)), span, memories));
  }
  if (read.size() == 1) x = read[0];
  if (read.size() > 1) x = concat(read, 1);
  const Tensor logits = to_logits_.forward(norm_.forward(reader.shifted_right(x)));

  update.after("remembered", reader.remembered());
  for (size_t i = 0; state && i < layers_.size(); ++i) layers_[i].attention.keep(memories[i], update, layer_name(i), x);
  update.commit();
  return logits;
}

bool BlockRecurrent::pauses_after(const State& state) const {
  return !state.find("padding").defined() && state.steps() % config_.block_width == config_.block_width - 1;
}

void BlockRecurrent::recompute_layers(bool wanted) {
  check(!wanted, BlockRecurrentConfig::kType, ": its layers hand memories and states to each other, so they cannot be ",
        "run again one by one; use a smaller batch, or shorter segments with the state carried");
}

void BlockRecurrent::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  for (size_t i = 0; i < layers_.size(); ++i) visitor.child(layer_name(i), layers_[i]);
  visitor.child("norm", norm_);
  visitor.child("to_logits", to_logits_);
}

}  // namespace monoid

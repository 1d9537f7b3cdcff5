#pragma once

#include <optional>
#include <string>
#include <vector>

#include "monoid/layers/block_recurrent_state.h"
#include "monoid/layers/state.h"
#include "monoid/ops/rotary.h"

namespace monoid {

struct BlockRecurrentOptions {
  int64_t channels = 0;
  int64_t heads = 8, head_channels = 64;
  int64_t width = 512;         // tokens of a block
  bool norms_queries = false;  // by a QueryKeyNorm
  int64_t vectors = 0;         // of a state that is written here, or 0
  int64_t reads = 0;           // states that are read here
  int64_t compressed = 0;      // keys of compressed memory, or 0
  int64_t factor = 4;          // keys that one of these stands for

  /// Keys in front of a block's own: first the compressed, then those of the block before it.
  int64_t memory() const { return compressed + width; }
  /// New compressed keys a block.
  int64_t fresh_compressed() const { return compressed > 0 ? width / factor : 0; }
  bool compresses() const { return compressed > 0 && factor > 1; }
  int64_t parameters() const;
};

/// The tokens that one pass through the layers reads: whole blocks, or a part of one.
struct BlockSpan {
  int64_t begin = 0;               // among the tokens of the call
  int64_t blocks = 1, tokens = 0;  // so many of each
  int64_t phase = 0;               // tokens that were read of the block before
  bool ends = false;               // the block, or every one, is full afterwards; apart: in some sequences it may be
  bool carried = true;             // something comes after this
  bool fresh = false;              // nothing came before, in any sequence
  Tensor first_key;                // i32 [batch, blocks]: how many keys of the memory are not there yet
  XPosTables tables;

  // Sequences may stand apart, each at its own place of its own block. Then there is one block, and:
  Tensor places;  // bool [batch, width, 1]: where new tokens are in the block; what is behind them does not count
  Tensor ended;   // bool [batch, 1, 1]
  // And if it is one token that everybody reads:
  Tensor end_key;  // i32 [batch]: its place among all keys, and one

  /// Whether something comes after a block that is full.
  bool writes() const { return ends && carried; }
  /// One of the blocks.
  BlockSpan block(int64_t index) const;
};

/// What a layer remembers of the tokens before a span. Keys and values are side by side, as projected.
struct BlockMemory {
  Tensor past;    // [batch, memory, 2 * head_channels], or undefined: nothing
  Tensor block;   // [batch, width, 2 * head_channels]: of the block that is not full, then zeros; or undefined
  Tensor states;  // [batch, vectors, channels]
  std::optional<StateContainer::View> view;  // of the states, where a layer has read them
  std::optional<StateContainer::Writing> writing;
};

/// A state that a layer reads, and whose it is.
struct StateReading {
  const StateContainer* container = nullptr;
  BlockMemory* memory = nullptr;
};

/// Attention inside blocks and to what is remembered of those before, with xPos positions that count from the beginning
/// of the memory; all heads share one key and one value. A layer with a state of its own writes it from each block, and
/// what layers read of states goes through the output projection beside what they saw.
class BlockRecurrentAttention : public Module {
 public:
  BlockRecurrentAttention(const BlockRecurrentOptions& options, Generator& init);

  /// x [batch, blocks * tokens, channels] -> the same shape, plus a residual of that shape. `memory` moves on. A state
  /// of another layer is read of one block at a time.
  Tensor forward(const Tensor& x, const BlockSpan& span, BlockMemory& memory, const std::vector<StateReading>& readings,
                 const Tensor& residual) const;

  /// What the state holds under `name`.past, .block and .states, or the beginning.
  BlockMemory recall(const StateUpdate& state, const std::string& name, const Tensor& like) const;
  void keep(const BlockMemory& memory, StateUpdate& state, const std::string& name, const Tensor& like) const;

  const StateContainer* container() const { return container_ ? &*container_ : nullptr; }
  void visit(Visitor& visitor) override;

 private:
  bool one_stretch(const BlockSpan& span) const;
  Tensor compress(const Tensor& blocks) const;
  Tensor move_on(const Tensor& now, const BlockSpan& span, BlockMemory& memory) const;
  Tensor look(const Tensor& queries, const Tensor& now, const Tensor& seen, const BlockSpan& span,
              BlockMemory& memory) const;
  Tensor write_states(const Tensor& now, const BlockSpan& span, BlockMemory& memory) const;
  Tensor held(const Tensor& rows, int64_t count, const Tensor& like) const;

  BlockRecurrentOptions options_;
  Linear to_query_, to_key_value_;
  std::optional<QueryKeyNorm> norm_;
  std::optional<StateContainer> container_;
  Tensor compress_weight_, compress_bias_;  // [2 * head_channels, head_channels, factor], [2 * head_channels]
  Linear to_out_;
};

}  // namespace monoid

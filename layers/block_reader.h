#pragma once

#include "monoid/layers/block_recurrent.h"

namespace monoid {

/// What all calls look up, made when it is first asked for: a graph that is recorded must find it there.
class BlockTables {
 public:
  explicit BlockTables(const BlockRecurrentOptions& options)
      : width_(options.width),
        rotated_(options.head_channels),
        rows_(options.memory() + blocks_at_once(options) * options.width) {}

  struct Tables {
    XPosTables rotary;  // their rows are of the memory, and then of blocks
    Tensor numbers;     // f32: 0, 1, 2, ...
  };
  /// For operands like `like`. They stay where they are, for graphs that are replayed.
  const Tables& of(const Tensor& like) const;

 private:
  static int64_t blocks_at_once(const BlockRecurrentOptions& options);

  int64_t width_, rotated_, rows_;
  mutable Tables tables_;
};

/// The spans that one call of a Block-Recurrent Transformer reads, from where its state stands: the rest of a block
/// that was begun, whole blocks all at once, the beginning of another. With padding, sequences are shifted to the left
/// for the call, so that their blocks begin together; where they end, and from then on, they stand apart.
class BlockReader {
 public:
  /// `held` is the state that `update` is of, or null.
  BlockReader(const char* owner, const BlockRecurrentOptions& options, const BlockTables::Tables& tables,
              StateUpdate& update, const State* held, const Tensor& tokens);

  bool done() const { return begin_ == time_; }
  /// The next tokens of the call.
  BlockSpan next();
  /// Nothing of what came in is remembered where `condition` (bool [1]).
  void forget(const Tensor& condition);
  /// i32 [batch]: the blocks that the memories are of.
  const Tensor& remembered() const { return remembered_; }

  /// [batch, time, ...] with the padding of each sequence behind it, and back.
  Tensor shifted_left(const Tensor& x) const { return shifted(x, 1); }
  Tensor shifted_right(const Tensor& x) const { return shifted(x, -1); }

 private:
  BlockSpan together() const;
  BlockSpan with_padding() const;
  BlockSpan one_token() const;
  Tensor first_key(int64_t blocks) const;
  Tensor numbers_to(int64_t end) const;
  Tensor shifted(const Tensor& x, int64_t sign) const;

  const char* owner_;
  BlockRecurrentOptions options_;
  BlockTables::Tables tables_;
  Device device_;
  int64_t time_, offset_, begin_ = 0;
  bool fresh_, keeps_;
  Tensor steps_, padding_, remembered_;
};

}  // namespace monoid

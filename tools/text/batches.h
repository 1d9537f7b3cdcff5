#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "monoid/core/random.h"
#include "monoid/core/tensor.h"
#include "monoid/tools/text/vocabulary.h"

namespace monoid {

/// tokens and targets, both i64 [batch, time]; targets are the tokens one place later.
struct Batch {
  Tensor tokens;
  Tensor targets;
};

/// Training batches: crops of `context` tokens at places drawn uniformly from the generator, whose seed and offset
/// are the whole position in the data. `tokens` must outlive it. A text shorter than a crop is an Error.
class RandomCrops {
 public:
  RandomCrops(std::span<const Token> tokens, int64_t batch, int64_t context, Generator generator);

  Batch next();
  Generator& generator() { return generator_; }

 private:
  std::span<const Token> tokens_;
  int64_t batch_, context_;
  Generator generator_;
};

/// The text as `batch` streams side by side, each read on from call to call, `context` tokens at a time: for a state
/// that is carried. When their ends are reached all begin anew; what is left over there is dropped. `tokens` must
/// outlive it. A text too short for one piece of each is an Error.
class Streams {
 public:
  Streams(std::span<const Token> tokens, int64_t batch, int64_t context);

  /// Whether the next piece is the streams' first.
  bool at_beginning() const { return position_ == 0; }
  Batch next();
  /// Pieces read of the streams, 0 to below their length.
  int64_t position() const { return position_; }
  void set_position(int64_t position);

 private:
  std::span<const Token> tokens_;
  int64_t batch_, context_;
  int64_t stream_;  // tokens of one stream
  int64_t position_ = 0;
};

/// Every non-overlapping window of `context` tokens (with the targets shifted by one), in order; what is left over at
/// the end is dropped. `tokens` must outlive it. A text without one whole window is an Error that names `part`.
class Windows {
 public:
  Windows(std::span<const Token> tokens, int64_t context, std::string_view part);

  int64_t count() const { return count_; }
  /// Windows [first, first + batch).
  Batch at(int64_t first, int64_t batch) const;

 private:
  std::span<const Token> tokens_;
  int64_t context_;
  int64_t count_;
};

}  // namespace monoid

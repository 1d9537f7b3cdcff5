#pragma once

#include <optional>
#include <vector>

#include "monoid/core/tape.h"
#include "monoid/tools/text/batches.h"
#include "monoid/tools/train/options.h"

namespace monoid {

/// What each training step reads: random crops of a text, these cut into segments, or continuous streams.
class Feed {
 public:
  /// `tokens` must outlive it. A text that is too short, or crops that --segments does not divide, are Errors.
  Feed(const TrainOptions& options, std::span<const Token> tokens);

  /// The batches of the next step: {tokens, targets}, both i64 [batch, time], and a third tensor where a state that is
  /// carried begins anew.
  std::vector<Tensors> next();
  static bool begins(const Tensors& batch) { return batch.size() > 2; }

  /// The place in the text, for a checkpoint: that of the crops, and that of the streams.
  Generator& generator() { return crops_.generator(); }
  int64_t position() const { return streams_ ? streams_->position() : 0; }
  void set_position(int64_t position);

 private:
  int64_t accumulated_, segments_;
  RandomCrops crops_;
  std::optional<Streams> streams_;
};

}  // namespace monoid

#pragma once

#include <vector>

#include "monoid/layers/state.h"
#include "monoid/ops/rotary.h"

namespace monoid {

struct RotaryEmbeddingOptions {
  int64_t rotated = 0;  // channels of a head that turn
  RotaryPairs pairs = RotaryPairs::halves;
  double theta = 10000;
  RotaryScaling scaling = {};
};

/// Rotary positions for the queries and keys of a model: counted from the first step that is not padding, on from where
/// the state stands. Has no parameters.
class RotaryEmbedding {
 public:
  explicit RotaryEmbedding(const RotaryEmbeddingOptions& options) : options_(options) {}

  /// What turns the heads of one call.
  struct Turn {
    Tensor table;
    RotaryPairs pairs;
    RotaryPositions at;

    /// [batch, time, head, channel].
    Tensor operator()(const Tensor& x) const { return rotary(x, table, pairs, at); }
  };
  /// For operands like `like`. A table that a graph is recorded with must be there before, so it reaches as far as the
  /// state has room; dynamic scaling, whose table changes with every step of the longest sequence (without its padding)
  /// beyond the time trained on, cannot be captured there. `frequencies` [rotated / 2], where a model stores them, are
  /// in the place of those of theta.
  Turn turn(StateUpdate& state, const Tensor& like, const Tensor& frequencies = {}) const;
  /// To be told by who stores frequencies whenever they may have changed.
  void look_again() { sure_ = false; }

 private:
  RotaryEmbeddingOptions options_;
  mutable Tensor table_;            // the last one, which most calls can use again
  mutable int64_t stretched_ = 0;   // the length that dynamic scaling made it for, or 0
  mutable Tensors recorded_;        // those that a graph may read again, also after a longer one took their place
  mutable std::vector<double> of_;  // the stored frequencies it was made of
  mutable bool sure_ = false;       // that these still are
};

}  // namespace monoid

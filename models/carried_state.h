#pragma once

#include "monoid/models/language_model.h"

namespace monoid {

/// Truncated backpropagation through time: a model's state between the segments of a text, in memory of its own, so
/// that a captured training step finds it where the one before left it. Gradients end where a segment begins.
class CarriedState {
 public:
  /// The training loss [] of a segment, on a tape or not. It goes on from the segment before, or, if `fresh`, from the
  /// model's own beginning; the state after it is kept. The first segment must be fresh.
  Tensor loss(LanguageModel& model, const Tensor& tokens, const Tensor& targets, bool fresh,
              Generator* random = nullptr);

  /// What the next segment begins with; empty before the first.
  const State& state() const { return state_; }
  void set_state(State state) { state_ = std::move(state); }

 private:
  State state_;
};

}  // namespace monoid

#pragma once

#include <numbers>

#include "monoid/models/language_model.h"
#include "monoid/tools/text/batches.h"

namespace monoid {

/// The mean loss of predicting `tokens` tokens.
struct Evaluation {
  double loss = 0;  // nats
  int64_t tokens = 0;

  double bits() const { return loss / std::numbers::ln2; }
};

/// Every window from a fresh state, `batch` of them at a time.
Evaluation evaluate(LanguageModel& model, const Windows& windows, int64_t batch);

/// The whole text as one sequence, in pieces of `context` tokens that carry their state on; `tokens` has at least two.
Evaluation evaluate_carried(LanguageModel& model, std::span<const Token> tokens, int64_t context);

}  // namespace monoid

#pragma once

#include <optional>

#include "monoid/core/stream.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// Token sequences of different lengths as one batch.
struct PaddedTokens {
  Tensor tokens;   // i64 [batch, time]: each sequence at the right, token 0 before it
  Tensor padding;  // i32 [batch]: how many of these; undefined where all sequences are equally long
};
/// At least one sequence, each of at least one token.
PaddedTokens pad_left(const std::vector<std::vector<int64_t>>& sequences);

/// Reads sequences into a model's recurrent state and goes on one token at a time, each at the same cost wherever it
/// stands. On a GPU a token is one captured graph: the tokens go in from pinned memory and the logits come out there.
class Decoder {
 public:
  /// `batch` sequences side by side. `model` must outlive it; its parameters may change between calls, in place.
  /// `graph` = false runs every token eagerly.
  Decoder(LanguageModel& model, int64_t batch, bool graph = true);

  /// Starts anew with tokens i64 [batch, time] on the CPU, time >= 1; `padding` as LanguageModel::forward takes it, but
  /// on the CPU, and every sequence has a token. Returns the logits f32 [batch, vocabulary] that follow the last ones,
  /// on the CPU, valid until the next call.
  Tensor prefill(const Tensor& tokens, const Tensor& padding = {});
  /// One more token of each sequence, i64 [batch] on the CPU, and the logits after it.
  Tensor step(const Tensor& tokens);

  /// The state after the last token, in memory that the next call writes to.
  const State& state() const { return state_; }

 private:
  Tensor run(const Tensor& tokens, const Tensor& padding = {});
  void record();
  bool fits_graph() const;

  LanguageModel& model_;
  Device device_;
  int64_t batch_;
  bool use_graph_;
  State state_;
  // Of the captured token.
  Tensor host_tokens_, host_logits_;
  std::vector<NamedTensor> buffers_;
  Graph graph_;
  bool tried_ = false;
};

}  // namespace monoid

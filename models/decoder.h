#pragma once

#include <optional>

#include "monoid/core/stream.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// Reads sequences into a model's recurrent state and goes on one token at a time, each at the same cost wherever it
/// stands. On a GPU a token is one captured graph: the tokens go in from pinned memory and the logits come out there.
class Decoder {
 public:
  /// `batch` sequences side by side. `model` must outlive it; its parameters may change between calls, in place.
  /// `graph` = false runs every token eagerly.
  Decoder(LanguageModel& model, int64_t batch, bool graph = true);

  /// Starts anew with tokens i64 [batch, time] on the CPU, time >= 1. Returns the logits f32 [batch, vocabulary] that
  /// follow the last of them, on the CPU, valid until the next call.
  Tensor prefill(const Tensor& tokens);
  /// One more token of each sequence, i64 [batch] on the CPU, and the logits after it.
  Tensor step(const Tensor& tokens);

  /// The state after the last token, in memory that the next call writes to.
  const State& state() const { return state_; }

 private:
  Tensor run(const Tensor& tokens);
  void record();

  LanguageModel& model_;
  Device device_;
  int64_t batch_;
  bool use_graph_;
  State state_;
  // Of the captured token.
  Tensor host_tokens_, tokens_, host_logits_;
  std::vector<NamedTensor> buffers_;
  Graph graph_;
  bool tried_ = false;
};

}  // namespace monoid

#pragma once

#include <string>

#include "monoid/core/random.h"
#include "monoid/layers/module.h"
#include "monoid/layers/state.h"

namespace monoid {

/// A model of token sequences: the one polymorphic class above Module, so that training, sampling and evaluation know
/// no model by name.
class LanguageModel : public Module {
 public:
  /// Its name in the catalog, such as "minlm".
  virtual std::string type() const = 0;
  /// How many tokens it knows: ids are 0 .. vocabulary() - 1.
  virtual int64_t vocabulary() const = 0;
  /// The configuration, as the text of a JSON object with every key.
  virtual std::string config() const = 0;

  /// tokens i32 or i64 [batch, time] -> logits [batch, time, vocabulary]. A non-empty `state` is where the sequence
  /// goes on; it is replaced by the state after the last token. Dropout is active only when a generator is given.
  virtual Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr) = 0;

  /// Mean cross-entropy in nats of predicting targets [batch, time] from tokens.
  Tensor loss(const Tensor& tokens, const Tensor& targets, State* state = nullptr, Generator* dropout = nullptr);
};

}  // namespace monoid

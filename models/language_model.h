#pragma once

#include <string>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/layers/module.h"
#include "monoid/layers/state.h"
#include "monoid/ops/optim.h"

namespace monoid {

/// What a training run asks of the optimizer.
struct OptimizerSettings {
  double weight_decay = 0;
  double clip = 0;      // largest norm of the gradient; 0: no limit
  int64_t context = 0;  // tokens of a sequence in a step
};

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
  /// goes on; it is replaced by the state after the last token. Random numbers (dropout, and forgetting a part of the
  /// state that came in) are drawn only when a generator is given, and on the device alone, so that a step can be
  /// captured. With `padding` (i32 [batch] on the device of the tokens, only where the state is fresh) as many tokens
  /// at the left of each sequence are any valid token: the logits behind them, and the state, are those of the sequence
  /// without them, and logits at padding mean nothing.
  virtual Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                         const Tensor& padding = {}) = 0;

  /// Mean cross-entropy in nats of predicting targets [batch, time] from tokens; those that are ignored_target() do not
  /// count, as those at padding must not.
  Tensor loss(const Tensor& tokens, const Tensor& targets, State* state = nullptr, Generator* dropout = nullptr,
              const Tensor& padding = {});

  /// The one target that need not be a token.
  virtual int64_t ignored_target() const { return -100; }

  /// What training makes small: the loss, unless the model adds terms of its own.
  virtual Tensor training_loss(const Tensor& tokens, const Tensor& targets, State* state = nullptr,
                               Generator* dropout = nullptr) {
    return loss(tokens, targets, state, dropout);
  }

  /// Whether the state has the same shapes after every token, so that it can be carried through a text of any length;
  /// keys and values of all tokens so far are not.
  virtual bool has_bounded_state() const { return true; }

  /// Whether to keep only what each layer reads and compute the rest again in backward: far less memory, about a third
  /// more time, the same bits. Forwards with a state keep everything. An Error for a model that cannot.
  virtual void recompute_layers(bool wanted) { recomputes_ = wanted; }

  /// Whether the token after this state costs more than others, as the last of a block may: a captured step of decoding
  /// is one of the others, and this token runs by itself.
  virtual bool pauses_after(const State& /*state*/) const { return false; }

  /// The trained tensors in the groups that an optimizer treats alike. Here: tensors of two axes and more decay, gains
  /// and biases do not, and no group has a limit of its own, so that `clip` is one for all gradients together. A model
  /// that limits its groups one by one gives them their clip_norm instead (0 where settings.clip is 0).
  virtual std::vector<ParameterGroup> parameter_groups(const OptimizerSettings& settings);

 protected:
  bool recomputes() const { return recomputes_; }

 private:
  bool recomputes_ = false;
};

}  // namespace monoid

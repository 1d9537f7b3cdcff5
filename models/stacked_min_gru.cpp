#include "monoid/models/stacked_min_gru.h"

namespace monoid {

StackedMambaMinGruOptions StackedMinGruConfig::stack() const {
  return {.num_layers = num_layers,
          .input_size = input_size,
          .hidden_size = hidden_size,
          .bias = bias,
          .dropout = dropout,
          .proj_down = proj_down,
          .causal = true};
}

void StackedMinGruConfig::visit(ConfigVisitor& visitor) {
  visitor.key("num_tokens", num_tokens);
  visitor.key("num_layers", num_layers);
  visitor.key("input_size", input_size);
  visitor.key("hidden_size", hidden_size);
  visitor.key("bias", bias);
  visitor.key("dropout", dropout);
  visitor.key("proj_down", proj_down);
}

void StackedMinGruConfig::validate() const {
  check_range(kType, "num_tokens", num_tokens, 1);
  check_range(kType, "num_layers", num_layers, 1);
  check_range(kType, "input_size", input_size, 1);
  check_range(kType, "hidden_size", hidden_size, 1);
  stack().validate(kType);
}

StackedMinGru::StackedMinGru(const StackedMinGruConfig& config, Generator& init)
    : config_(validated(config)),
      embedding_(config.num_tokens, config.input_size, init),
      stack_(config.stack(), init),
      to_logits_(config.input_size, config.num_tokens, Bias::none, init) {}

Tensor StackedMinGru::forward(const Tensor& tokens, State* state, Generator* dropout, const Tensor& padding) {
  StateUpdate update(StackedMinGruConfig::kType, state, tokens, padding);
  const Tensor logits = to_logits_.forward(stack_.forward(embedding_.forward(tokens), update, dropout, recomputes()));
  update.commit();
  return logits;
}

void StackedMinGru::visit(Visitor& visitor) {
  visitor.child("embedding", embedding_);
  visitor.child("stack", stack_);
  visitor.child("to_logits", to_logits_);
}

}  // namespace monoid

#include "monoid/models/language_model.h"

#include "monoid/ops/cross_entropy.h"

namespace monoid {

Tensor LanguageModel::loss(const Tensor& tokens, const Tensor& targets, State* state, Generator* dropout) {
  check_shape(type(), "targets", targets, tokens.shape());
  return cross_entropy(forward(tokens, state, dropout), targets);
}

}  // namespace monoid

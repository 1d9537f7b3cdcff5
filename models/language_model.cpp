#include "monoid/models/language_model.h"

#include "monoid/ops/cross_entropy.h"

namespace monoid {

Tensor LanguageModel::loss(const Tensor& tokens, const Tensor& targets, State* state, Generator* dropout,
                           const Tensor& padding) {
  check_shape(type(), "targets", targets, tokens.shape());
  return cross_entropy(forward(tokens, state, dropout, padding), targets, {.ignore_index = ignored_target()});
}

std::vector<ParameterGroup> LanguageModel::parameter_groups(const OptimizerSettings& settings) {
  Tensors matrices, vectors;
  for (const NamedTensor& parameter : parameters(*this)) {
    (parameter.value.rank() >= 2 ? matrices : vectors).push_back(parameter.value);
  }
  return {{.name = "matrices", .parameters = matrices, .weight_decay = settings.weight_decay},
          {.name = "vectors", .parameters = vectors, .weight_decay = 0.0}};
}

}  // namespace monoid

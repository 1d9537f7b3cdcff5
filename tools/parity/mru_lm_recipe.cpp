#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

Recomputed mru_lm_recipe(const Golden& golden, const Target& target) {
  // The reference numbers its states by mru layer, here they have their layer's number.
  const auto matrices = [](const State& state) {
    Recomputed states;
    for (const NamedTensor& entry : state.tensors()) {
      if (entry.name.ends_with(".matrices")) states.emplace(str("out/state.", states.size()), entry.value);
    }
    return states;
  };
  return recompute_language_model(golden, target, {.states = matrices});
}

}  // namespace monoid::parity

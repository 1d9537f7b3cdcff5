#include "monoid/ops/shape_ops.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

Recomputed min_lm_recipe(const Golden& golden, const Target& target) {
  const auto hiddens = [](const State& state) {
    Recomputed states;
    for (int layer = 0; state.find(str("layers.", layer, ".hidden")).defined(); ++layer)
      states[str("out/decode.hidden.", layer)] = unsqueeze(state.find(str("layers.", layer, ".hidden")), 1);
    return states;
  };
  return recompute_language_model(golden, target, {.states = hiddens});
}

}  // namespace monoid::parity

#include "monoid/ops/shape_ops.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

// Memories are there as far as they are filled, keys and values apart; states in the order of their layers.
Recomputed block_recurrent_recipe(const Golden& golden, const Target& target) {
  const auto states = [&](const State& state) {
    Recomputed result;
    int written = 0;
    for (int layer = 0; layer < golden.count("out/xl_memory."); ++layer) {
      const std::string name = str("out/xl_memory.", layer);
      const Tensor past = state.find(str("layers.", layer, ".past"));
      const int64_t filled = golden.get(name).size(2), channels = past.size(2) / 2;
      result[name] = stack(split(slice(past, 1, past.size(1) - filled, past.size(1)), 2, {channels, channels}), 0);
      const Tensor vectors = state.find(str("layers.", layer, ".states"));
      if (vectors.defined()) result[str("out/state.", written++)] = vectors;
    }
    return result;
  };
  return recompute_language_model(golden, target, {.states = states});
}

}  // namespace monoid::parity

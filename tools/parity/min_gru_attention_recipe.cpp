#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

// The golden files have a head of their own, which their configuration leaves out.
Recomputed min_gru_attention_recipe(const Golden& golden, const Target& target) {
  const bool tied = !golden.has("param/lm_head.weight");
  return recompute_language_model(golden, target, {.settings = tied ? "{}" : R"({"tie_word_embeddings": false})"});
}

}  // namespace monoid::parity

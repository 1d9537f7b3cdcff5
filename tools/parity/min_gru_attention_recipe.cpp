#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

// A golden file with a head has one of its own, unless its configuration says that the embedding is it.
Recomputed min_gru_attention_recipe(const Golden& golden, const Target& target) {
  const bool own = golden.has("param/lm_head.weight") && golden.config.find("tie_word_embeddings") == std::string::npos;
  return recompute_language_model(golden, target, {.settings = own ? R"({"tie_word_embeddings": false})" : "{}"});
}

}  // namespace monoid::parity

#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

Recomputed hybrid_lm_recipe(const Golden& golden, const Target& target) {
  return recompute_language_model(golden, target);
}

}  // namespace monoid::parity

#pragma once

#include <map>
#include <string>
#include <vector>

#include "monoid/models/import.h"
#include "monoid/tools/parity/golden.h"

namespace monoid::parity {

/// Where and in what precision to recompute.
struct Target {
  Device device = kCpu;
  DType dtype = DType::f64;
};

/// What a recipe computed again, by golden name ("out/logits", "grad/norm.weight", "grad_in/x").
using Recomputed = std::map<std::string, Tensor>;

/// Builds what a golden file describes, loads its parameters and computes every output and gradient again.
using Recipe = Recomputed (*)(const Golden& golden, const Target& target);

struct RecipeEntry {
  std::string source;
  Recipe recipe;
};

/// Every source that parity knows, one recipe each, in a file of its own.
const std::vector<RecipeEntry>& recipes();
/// An unknown source is an Error that lists the known ones.
Recomputed recompute(const Golden& golden, const Target& target);

Recomputed min_lm_recipe(const Golden& golden, const Target& target);
Recomputed stacked_mamba_min_gru_recipe(const Golden& golden, const Target& target);
Recomputed wrapped_min_gru_recipe(const Golden& golden, const Target& target);

// What recipes share.

/// Casts and moves the module, then loads `param/*` under the reference's names.
void load_parameters(Module& module, const ImportTable& table, const Golden& golden, const Target& target);
/// Adds the gradients of all parameters as `grad/NAME` under the reference's names.
void collect_gradients(Module& module, const ImportTable& table, Recomputed& result);

}  // namespace monoid::parity

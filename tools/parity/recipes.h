#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "monoid/layers/state.h"
#include "monoid/models/import.h"
#include "monoid/tools/parity/golden.h"

namespace monoid::parity {

/// Where and in what precision to recompute.
struct Target {
  Device device = kCpu;
  DType dtype = DType::f64;
};

/// Tensors by golden name: what a recipe computed again ("out/logits", "grad/norm.weight", "grad_in/x").
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

Recomputed block_recurrent_recipe(const Golden& golden, const Target& target);
Recomputed gate_loop_recipe(const Golden& golden, const Target& target);
Recomputed simple_gate_loop_recipe(const Golden& golden, const Target& target);
Recomputed min_gru_attention_recipe(const Golden& golden, const Target& target);
Recomputed min_lm_recipe(const Golden& golden, const Target& target);
Recomputed hybrid_lm_recipe(const Golden& golden, const Target& target);
Recomputed mru_lm_recipe(const Golden& golden, const Target& target);
Recomputed stacked_mamba_min_gru_recipe(const Golden& golden, const Target& target);
Recomputed wrapped_min_gru_recipe(const Golden& golden, const Target& target);

// What recipes share.

/// Casts and moves the module, then loads `param/*` under the reference's names.
void load_parameters(Module& module, const ImportTable& table, const Golden& golden, const Target& target);
/// Adds the gradients of all parameters as `grad/NAME` under the reference's names.
void collect_gradients(Module& module, const ImportTable& table, Recomputed& result);

/// How the file of one language model differs from the usual one.
struct LanguageModelFile {
  std::string settings = "{}";  // JSON: configuration keys that the file leaves out, over the ones it has
  /// What the file holds of the state after its last token, by golden name.
  std::function<Recomputed(const State& state)> states = {};
};

/// A language model of the catalog from `in/ids` [batch, time]. `out/loss` predicts ids[1:] from ids[:-1]. What else a
/// file may have is computed where it is there:
///   out/logits           of as many ids as it has steps
///   out/logits_resumed   the last steps of these again, from the state before them
///   out/logits.N         segments that carry their state on and no gradients; then the loss is the mean of theirs
///   out/masked_logits    of ids whose left is padding, as `in/attention_mask` says
///   out/decode.*         a prefix of ids, then one token at a time
Recomputed recompute_language_model(const Golden& golden, const Target& target, const LanguageModelFile& file = {});

/// A layer from `in/*`, whose tensors come to `run` by name, without the prefix. The loss is the mean square of the
/// output `trained`; inputs with a `grad_in/` get their gradient.
using LayerRun = std::function<Recomputed(const std::map<std::string, Tensor>& inputs)>;
Recomputed recompute_layer(Module& layer, const Golden& golden, const Target& target, const LayerRun& run,
                           const std::string& trained = "out/y");

}  // namespace monoid::parity

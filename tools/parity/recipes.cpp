#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

const std::vector<RecipeEntry>& recipes() {
  static const std::vector<RecipeEntry> entries{
      {"lucidrains/minGRU-pytorch minLM", min_lm_recipe},
      {"lucidrains/minGRU-pytorch hybridLM", hybrid_lm_recipe},
      {"vasqu/minGRU-torch MinGRUForCausalLM", min_gru_attention_recipe},
      {"Fritschek/MinGRU-x-Mamba StackedMambaMinGRU", stacked_mamba_min_gru_recipe},
      {"Fritschek/MinGRU-x-Mamba WrappedMinGRU", wrapped_min_gru_recipe},
      {"mikayahlevi/mru-lm hybrid_lm_network", mru_lm_recipe},
      {"lucidrains/block-recurrent-transformer-pytorch", block_recurrent_recipe},
      {"lucidrains/gateloop-transformer Transformer", gate_loop_recipe},
      {"lucidrains/gateloop-transformer SimpleGateLoopLayer", simple_gate_loop_recipe},
  };
  return entries;
}

Recomputed recompute(const Golden& golden, const Target& target) {
  std::string known;
  for (const RecipeEntry& entry : recipes()) {
    if (entry.source == golden.source) return entry.recipe(golden, target);
    known += "\n  " + entry.source;
  }
  fail("unknown source '", golden.source, "'; the known ones are", known);
}

void load_parameters(Module& module, const ImportTable& table, const Golden& golden, const Target& target) {
  cast_to(module, target.dtype);
  move_to(module, target.device);
  load_reference(module, table, golden.group("param/"));
}

void collect_gradients(Module& module, const ImportTable& table, Recomputed& result) {
  std::vector<NamedTensor> gradients;
  for (const NamedTensor& parameter : parameters(module)) {
    if (parameter.value.grad().defined()) gradients.push_back({parameter.name, parameter.value.grad()});
  }
  for (const auto& [name, gradient] : export_tensors(table, gradients)) result["grad/" + name] = gradient;
}

}  // namespace monoid::parity

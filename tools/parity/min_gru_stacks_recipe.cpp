#include "monoid/layers/mamba_min_gru.h"
#include "monoid/layers/wrapped_min_gru.h"
#include "monoid/models/config.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

// Training and evaluation compute the same there, in two ways. in/h_0.N, where a file has them, are what layers start
// from, and out/h_n.N what they hand on.
Recomputed stacked_mamba_min_gru_recipe(const Golden& golden, const Target& target) {
  StackedMambaMinGruOptions options;
  read_config("StackedMambaMinGRU", golden.config, [&](ConfigVisitor& visitor) {
    visitor.key("num_layers", options.num_layers);
    visitor.key("input_size", options.input_size);
    visitor.key("hidden_size", options.hidden_size);
    visitor.key("bias", options.bias);
    visitor.key("dropout", options.dropout);
    visitor.key("proj_down", options.proj_down);
  });
  Generator init(0);
  StackedMambaMinGru stack(options, init);
  const auto run = [&](const auto& inputs) -> Recomputed {
    Tensors states;
    for (int i = 0; i < golden.count("in/h_0."); ++i) states.push_back(inputs.at(str("h_0.", i)));
    const Tensor y = stack.forward(inputs.at("x"), &states);
    Recomputed result{{"out/y_train", y}, {"out/y_eval", y}};
    for (size_t i = 0; i < states.size(); ++i) result[str("out/h_n.", i)] = states[i];
    return result;
  };
  return recompute_layer(stack, golden, target, run, "out/y_train");
}

Recomputed wrapped_min_gru_recipe(const Golden& golden, const Target& target) {
  WrappedMinGruOptions options;
  read_config("WrappedMinGRU", golden.config, [&](ConfigVisitor& visitor) {
    visitor.key("input_size", options.input_size);
    visitor.key("hidden_size", options.hidden_size);
    visitor.key("num_layers", options.num_layers);
    visitor.key("bidirectional", options.bidirectional);
    visitor.key("bias", options.bias);
    visitor.key("batch_first", options.batch_first);
  });
  Generator init(0);
  WrappedMinGru gru(options, init);
  return recompute_layer(gru, golden, target, [&](const auto& inputs) -> Recomputed {
    const auto h_0 = inputs.find("h_0");
    const auto [y, h_n] = gru.forward(inputs.at("x"), h_0 == inputs.end() ? Tensor() : h_0->second);
    return {{"out/y", y}, {"out/h_n", h_n}};
  });
}

}  // namespace monoid::parity

#include "monoid/layers/simple_gate_loop.h"
#include "monoid/models/config.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

Recomputed gate_loop_recipe(const Golden& golden, const Target& target) {
  return recompute_language_model(golden, target);
}

// The cache there is of a prefix: the product of all transitions and the state, each [batch * channel, 1]; the rest
// goes on from it.
Recomputed simple_gate_loop_recipe(const Golden& golden, const Target& target) {
  SimpleGateLoopOptions options;
  bool use_jax_associative_scan = false;  // another way there to the same numbers
  read_config("SimpleGateLoopLayer", golden.config, [&](ConfigVisitor& visitor) {
    visitor.key("dim", options.dim);
    visitor.key("prenorm", options.prenorm);
    visitor.key("use_heinsen", options.use_heinsen);
    visitor.key("use_jax_associative_scan", use_jax_associative_scan);
    visitor.key("post_ln", options.post_ln);
    visitor.key("reverse", options.reverse);
  });
  Generator init(0);
  SimpleGateLoop layer(options, init);
  return recompute_layer(layer, golden, target, [&](const auto& inputs) -> Recomputed {
    const Tensor x = inputs.at("x");
    Recomputed result{{"out/y", layer.forward(x).output}};
    if (!golden.has("out/prefix_y")) return result;
    const int64_t length = golden.get("out/prefix_y").size(1);
    const Tensor prefix = slice(x, 1, 0, length);
    const OutputAndState first = layer.forward(prefix);
    result["out/prefix_y"] = first.output;
    result["out/cache.a"] = reshape(layer.decay(prefix), {-1, 1});
    result["out/cache.kv"] = reshape(first.state, {-1, 1});
    if (golden.has("out/resumed_y"))
      result["out/resumed_y"] = layer.forward(slice(x, 1, length, x.size(1)), first.state).output;
    return result;
  });
}

}  // namespace monoid::parity

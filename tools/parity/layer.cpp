#include "monoid/core/tape.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

Recomputed recompute_layer(Module& layer, const Golden& golden, const Target& target, const LayerRun& run,
                           const std::string& trained) {
  const ImportTable& table = import_table(golden.source);
  load_parameters(layer, table, golden, target);
  std::map<std::string, Tensor> inputs;
  for (const auto& [name, value] : golden.group("in/")) {
    Tensor& input = inputs[name] = (is_floating(value.dtype()) ? value.to(target.dtype) : value).to(target.device);
    if (golden.has("grad_in/" + name)) input.set_requires_grad();
  }
  Recomputed result;
  {
    Tape tape;
    result = run(inputs);
    check(result.contains(trained), "the recipe of ", golden.source, " did not compute ", trained,
          ", which the loss is made of");
    const Tensor loss = mean(square(result[trained]));
    tape.backward(loss);
    result["out/loss"] = loss;
  }
  for (auto& [name, value] : result) value = value.detach();
  collect_gradients(layer, table, result);
  for (const auto& [name, input] : inputs) {
    if (input.grad().defined()) result["grad_in/" + name] = input.grad();
  }
  return result;
}

}  // namespace monoid::parity

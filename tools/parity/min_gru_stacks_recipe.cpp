#include "monoid/core/tape.h"
#include "monoid/layers/mamba_min_gru.h"
#include "monoid/layers/wrapped_min_gru.h"
#include "monoid/models/config.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {
namespace {

// An input of the golden file where the parameters are, wanting a gradient.
Tensor input(const Golden& golden, const std::string& name, const Target& target) {
  return golden.get("in/" + name).to(target.device).to(target.dtype).clone().set_requires_grad();
}

}  // namespace

// The loss is the mean square of the output; training and evaluation compute the same there, in two ways.
Recomputed stacked_mamba_min_gru_recipe(const Golden& golden, const Target& target) {
  const ImportTable& table = import_table(golden.source);
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
  load_parameters(stack, table, golden, target);

  Recomputed result;
  Tensor x = input(golden, "x", target);
  {
    Tape tape;
    const Tensor y = stack.forward(x), loss = mean(square(y));
    tape.backward(loss);
    result["out/y_train"] = result["out/y_eval"] = y.detach();
    result["out/loss"] = loss.detach();
  }
  result["grad_in/x"] = x.grad();
  collect_gradients(stack, table, result);
  return result;
}

Recomputed wrapped_min_gru_recipe(const Golden& golden, const Target& target) {
  const ImportTable& table = import_table(golden.source);
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
  load_parameters(gru, table, golden, target);

  Recomputed result;
  Tensor x = input(golden, "x", target);
  Tensor h_0 = golden.has("in/h_0") ? input(golden, "h_0", target) : Tensor();
  {
    Tape tape;
    const auto [y, h_n] = gru.forward(x, h_0);
    const Tensor loss = mean(square(y));
    tape.backward(loss);
    result["out/y"] = y.detach();
    result["out/h_n"] = h_n.detach();
    result["out/loss"] = loss.detach();
  }
  result["grad_in/x"] = x.grad();
  if (h_0.defined()) result["grad_in/h_0"] = h_0.grad();
  collect_gradients(gru, table, result);
  return result;
}

}  // namespace monoid::parity

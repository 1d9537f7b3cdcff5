#include "monoid/core/tape.h"
#include "monoid/models/catalog.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {

// logits over all ids; the loss predicts ids[1:] from ids[:-1]; decode feeds a prefix, then one token at a time.
Recomputed min_lm_recipe(const Golden& golden, const Target& target) {
  const ImportTable& table = import_table(golden.source);
  Generator init(0);
  const auto model = make_model(table.model, golden.config, init);
  load_parameters(*model, table, golden, target);
  const Tensor ids = golden.get("in/ids").to(target.device);
  const int64_t time = ids.size(1);

  Recomputed result;
  result["out/logits"] = model->forward(ids);
  {
    Tape tape;
    const Tensor loss = model->loss(slice(ids, 1, 0, time - 1), slice(ids, 1, 1, time));
    tape.backward(loss);
    result["out/loss"] = loss.detach();
  }
  collect_gradients(*model, table, result);

  if (golden.has("out/decode.prefill_logits")) {
    const int64_t prefix = golden.get("out/decode.prefill_logits").size(1);
    State state;
    result["out/decode.prefill_logits"] = model->forward(slice(ids, 1, 0, prefix), &state);
    Tensors steps;
    for (int64_t t = prefix; t < time; ++t) steps.push_back(model->forward(slice(ids, 1, t, t + 1), &state));
    result["out/decode.step_logits"] = concat(steps, 1);
    for (int layer = 0; golden.has(str("out/decode.hidden.", layer)); ++layer) {
      const Tensor hidden = state.find(str("layers.", layer, ".hidden"));
      if (hidden.defined()) result[str("out/decode.hidden.", layer)] = unsqueeze(hidden, 1);
    }
  }
  return result;
}

}  // namespace monoid::parity

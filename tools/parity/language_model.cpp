#include <nlohmann/json.hpp>

#include "monoid/core/tape.h"
#include "monoid/models/catalog.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tools/parity/recipes.h"

namespace monoid::parity {
namespace {

std::string merged(const std::string& config, const std::string& settings) {
  auto object = nlohmann::ordered_json::parse(config, nullptr, /*allow_exceptions=*/false);
  check(object.is_object(), "the golden file's config is not a JSON object: ", config.substr(0, 60));
  object.update(nlohmann::ordered_json::parse(settings));
  return object.dump();
}

Tensor steps(const Tensor& ids, int64_t begin, int64_t end) { return slice(ids, 1, begin, end); }

// The loss of predicting each id from those before it.
Tensor next_id_loss(LanguageModel& model, const Tensor& ids) {
  const int64_t time = ids.size(1);
  return model.loss(steps(ids, 0, time - 1), steps(ids, 1, time));
}

// Stretches of equal length, the last id of each being the first of the next; gradients stop in between.
Tensor segment_loss(LanguageModel& model, const Tensor& ids, int64_t segments, State& state, Recomputed& result) {
  const int64_t length = (ids.size(1) - 1) / segments;
  Tensor total;
  for (int64_t i = 0; i < segments; ++i) {
    const Tensor tokens = steps(ids, i * length, (i + 1) * length);
    {
      const NoTape logits_alone;
      State before = state;
      result[str("out/logits.", i)] = model.forward(tokens, &before);
    }
    const Tensor loss = model.loss(tokens, steps(ids, i * length + 1, (i + 1) * length + 1), &state);
    state.detach();
    total = total.defined() ? total + loss : loss;
  }
  return total / static_cast<double>(segments);
}

// How many steps at the left of each row the mask hides, i32 [batch].
Tensor padding_of(const Tensor& attention_mask) {
  const Tensor hidden = cast(equal(attention_mask, Tensor::zeros_like(attention_mask)), DType::f32);
  return cast(sum(hidden, 1), DType::i32);
}

}  // namespace

Recomputed recompute_language_model(const Golden& golden, const Target& target, const LanguageModelFile& file) {
  const ImportTable& table = import_table(golden.source);
  Generator init(0);
  const auto model = make_model(table.model, merged(golden.config, file.settings), init);
  load_parameters(*model, table, golden, target);
  const Tensor ids = golden.get("in/ids").to(target.device);
  const int64_t time = ids.size(1);

  Recomputed result;
  State state;
  {
    Tape tape;
    const int segments = golden.count("out/logits.");
    const Tensor loss = segments > 0 ? segment_loss(*model, ids, segments, state, result) : next_id_loss(*model, ids);
    tape.backward(loss);
    result["out/loss"] = loss.detach();
  }
  collect_gradients(*model, table, result);

  if (golden.has("out/logits")) {
    const int64_t length = golden.get("out/logits").size(1);
    state.clear();
    result["out/logits"] = model->forward(steps(ids, 0, length), &state);
    if (golden.has("out/logits_resumed")) {
      const int64_t rest = golden.get("out/logits_resumed").size(1);
      State before;
      model->forward(steps(ids, 0, length - rest), &before);
      result["out/logits_resumed"] = model->forward(steps(ids, length - rest, length), &before);
    }
  }
  if (golden.has("out/masked_logits")) {
    const Tensor padding = padding_of(golden.get("in/attention_mask")).to(target.device);
    result["out/masked_logits"] = model->forward(ids, nullptr, nullptr, padding);
  }
  if (golden.has("out/decode.prefill_logits")) {
    const int64_t prefix = golden.get("out/decode.prefill_logits").size(1);
    state.clear();
    result["out/decode.prefill_logits"] = model->forward(steps(ids, 0, prefix), &state);
    Tensors each;
    for (int64_t t = prefix; t < time; ++t) each.push_back(model->forward(steps(ids, t, t + 1), &state));
    result["out/decode.step_logits"] = concat(each, 1);
  }
  if (file.states) result.merge(file.states(state));
  return result;
}

}  // namespace monoid::parity

// Whole training steps and decoding, at the shapes the peers were measured at.

#include <memory>

#include "monoid/core/tape.h"
#include "monoid/models/catalog.h"
#include "monoid/ops/optim.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

struct Setting {
  const char* model;
  const char* label;
  const char* config;
  int64_t batch, time;
};

constexpr int64_t kVocabulary = 65;

const Setting kSettings[] = {
    {"minlm", "minGRU width 256, depth 4", R"({"num_tokens": 65, "dim": 256, "depth": 4})", 8, 256},
    {"minlm", "minLSTM width 256, depth 4", R"({"num_tokens": 65, "dim": 256, "depth": 4, "use_lstm": true})", 8, 256},
    {"minlm", "minGRU width 384, depth 6", R"({"num_tokens": 65, "dim": 384, "depth": 6})", 64, 256},
};

// Forward, backward, clip and AdamW, as the trainer does them.
Case training_step(const Setting& setting) {
  Generator generator(1);
  std::shared_ptr<LanguageModel> model = make_model(setting.model, setting.config, generator);
  Tensors all;
  for (NamedTensor& parameter : parameters(*model)) all.push_back(parameter.value.set_requires_grad());
  auto optimizer = std::make_shared<AdamW>(
      std::vector<ParameterGroup>{{.name = "all", .parameters = all, .weight_decay = 0.1, .clip_norm = 1.0}},
      AdamWOptions{.beta2 = 0.99});
  const Tensor tokens = random_integers({setting.batch, setting.time}, generator, kVocabulary);
  const Tensor targets = random_integers({setting.batch, setting.time}, generator, kVocabulary);
  const double count = static_cast<double>(tokens.elements());
  const double flops = 6 * static_cast<double>(parameter_count(*model)) * count;
  return {"train/" + std::string(setting.model),
          str(setting.label, ", ", setting.batch, " x ", setting.time),
          0,
          flops,
          count,
          [=] {
            Tape tape;
            tape.backward(model->loss(tokens, targets));
            optimizer->clip();
            optimizer->step(1e-3);
            optimizer->zero_grad();
          }};
}

Case decode_step(const Setting& setting, int64_t batch) {
  Generator generator(1);
  std::shared_ptr<LanguageModel> model = make_model(setting.model, setting.config, generator);
  const Tensor token = random_integers({batch, 1}, generator, kVocabulary);
  auto state = std::make_shared<State>();
  const double parameters = static_cast<double>(parameter_count(*model));
  return {"decode/" + std::string(setting.model),
          str(setting.label, ", batch ", batch),
          4 * parameters,
          2 * parameters * static_cast<double>(batch),
          static_cast<double>(batch),
          [=] { model->forward(token, state.get()); }};
}

}  // namespace

std::vector<CaseMaker> model_cases() {
  std::vector<CaseMaker> makers;
  for (const Setting& setting : kSettings) {
    makers.push_back(
        {str("train/", setting.model, " ", setting.label), [&] { return std::vector{training_step(setting)}; }});
  }
  for (int64_t batch : {1, 64}) {
    makers.push_back({str("decode/", kSettings[0].model, " ", batch),
                      [=] { return std::vector{decode_step(kSettings[0], batch)}; }});
  }
  return makers;
}

}  // namespace monoid::bench

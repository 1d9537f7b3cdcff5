// Whole training steps and decoding, at the shapes the peers were measured at.

#include <memory>

#include "monoid/layers/simple_gate_loop.h"
#include "monoid/layers/wrapped_min_gru.h"
#include "monoid/models/catalog.h"
#include "monoid/models/decoder.h"
#include "monoid/models/train_step.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

struct Setting {
  const char* model;
  const char* label;
  const char* config;
  int64_t batch, time;
};

const Setting kSettings[] = {
    {"minlm", "minGRU width 256, depth 4", R"({"num_tokens": 65, "dim": 256, "depth": 4})", 8, 256},
    {"minlm", "minLSTM width 256, depth 4", R"({"num_tokens": 65, "dim": 256, "depth": 4, "use_lstm": true})", 8, 256},
    {"minlm", "minGRU width 384, depth 6", R"({"num_tokens": 65, "dim": 384, "depth": 6})", 64, 256},
    {"minlm", "minGRU width 512, depth 6", R"({"dim": 512, "depth": 6})", 4, 512},
    {"minlm", "minGRU width 512, depth 6", R"({"dim": 512, "depth": 6})", 64, 512},
    {"minlm", "minLSTM width 512, depth 6", R"({"dim": 512, "depth": 6, "use_lstm": true})", 64, 512},
    {"minlm", "minGRU width 1024, depth 12", R"({"dim": 1024, "depth": 12})", 16, 2048},
    {"hybridlm", "width 384, depth 6", R"({"num_tokens": 65, "dim": 384, "heads": 6})", 64, 256},
    {"min-gru-attention", "width 384, 6 layers, attention at 2 and 4",
     R"({"vocab_size": 65, "hidden_size": 384, "attention_head_dim": 64, "num_attention_heads": 6,
         "num_key_value_heads": 6, "attention_layers_idx": [2, 4], "num_hidden_layers": 6})",
     64, 256},
    {"mru-lm", "width 256, 4 x (mru, mlp)",
     R"({"vocab_size": 65, "embedding_size": 256, "n_state_heads": 4, "state_size": 256,
         "layers": ["mru", "mlp", "mru", "mlp", "mru", "mlp", "mru", "mlp"]})",
     8, 256},
    {"mru-lm", "width 256, 4 x (attn, mlp)",
     R"({"vocab_size": 65, "embedding_size": 256, "n_attn_heads": 4, "key_size": 256, "value_size": 256,
         "layers": ["attn", "mlp", "attn", "mlp", "attn", "mlp", "attn", "mlp"]})",
     8, 256},
    {"mru-lm", "width 384, 6 x (mru, mlp)", R"({"vocab_size": 65})", 64, 256},
    {"mru-lm", "width 384, 6 x (attn, mlp)",
     R"({"vocab_size": 65, "max_sequence_length": 256, "layers": ["attn", "mlp", "attn", "mlp", "attn", "mlp",
         "attn", "mlp", "attn", "mlp", "attn", "mlp"]})",
     64, 256},
    {"block-recurrent", "width 256, depth 4, blocks of 128",
     R"({"num_tokens": 65, "dim": 256, "depth": 4, "heads": 4, "max_seq_len": 256, "block_width": 128})", 8, 256},
    {"block-recurrent", "width 512, depth 6, blocks of 512", R"({"recurrent_layers": [4]})", 4, 2048},
    {"block-recurrent", "width 512, depth 6, blocks of 512", R"({"recurrent_layers": [4]})", 16, 2048},
    {"gate-loop", "width 256, depth 4", R"({"num_tokens": 65, "dim": 256, "depth": 4})", 8, 256},
    {"gate-loop", "width 384, depth 6", R"({"num_tokens": 65, "dim": 384})", 64, 256},
    {"gate-loop", "width 512, depth 6, LayerNorm after", R"({"gate_loop_heads": 512, "post_ln_norm": true})", 4, 256},
    {"gate-loop", "width 512, depth 6, LayerNorm after", R"({"gate_loop_heads": 512, "post_ln_norm": true})", 64, 512},
    {"stacked-min-gru", "width 256, hidden 512, 4 layers", "{}", 16, 1024},
    {"stacked-min-gru", "width 256, hidden 256, 4 layers", R"({"num_tokens": 65, "hidden_size": 256})", 8, 256},
};

std::shared_ptr<LanguageModel> model_of(const Setting& setting, const Target& target) {
  Generator generator(1);
  std::shared_ptr<LanguageModel> model = make_model(setting.model, setting.config, generator);
  cast_to(*model, target.dtype);
  move_to(*model, target.device);
  return model;
}

// Forward, backward, clip and AdamW, as the trainer does them: on a GPU one step runs ahead of the host. `items` are
// the positions that every parameter is multiplied with.
template <class Model>
Case step_case(const std::string& name, const std::string& shape, const std::shared_ptr<Model>& model,
               const std::vector<ParameterGroup>& groups, const TrainStep::Loss& loss, const Tensors& batch,
               double items, const Target& target) {
  struct Training {
    std::optional<AdamW> optimizer;
    std::optional<TrainStep> step;
    std::optional<PendingStep> before;
    std::vector<Tensors> batches;
  };
  auto training = std::make_shared<Training>();
  for (NamedTensor& parameter : parameters(*model)) parameter.value.set_requires_grad();
  training->optimizer.emplace(groups, AdamWOptions{.beta2 = 0.99});
  training->step.emplace(target.device, loss, *training->optimizer,
                         TrainStepOptions{.clip = common_clip(*training->optimizer, 1)});
  training->batches = {batch};
  const auto run = [training, ahead = target.device.is_cuda()] {
    std::optional<PendingStep> waited = training->step->run(training->batches, 1e-3);
    if (ahead) waited.swap(training->before);
    if (waited) waited->wait();
  };
  for (int warm_up = 0; target.device.is_cuda() && warm_up < 3; ++warm_up) run();
  return {name, shape, 0, 6 * static_cast<double>(parameter_count(*model)) * items, items, run};
}

Case training_step(const Setting& setting, const Target& target) {
  const std::shared_ptr<LanguageModel> model = model_of(setting, target);
  Generator generator(1);
  const auto tokens = [&] { return random_integers({setting.batch, setting.time}, generator, model->vocabulary()); };
  return step_case(
      "train/" + std::string(setting.model), str(setting.label, ", ", setting.batch, " x ", setting.time), model,
      model->parameter_groups({.weight_decay = 0.1, .clip = 1, .context = setting.time}),
      [model](const Tensors& batch, Generator*) { return model->loss(batch[0], batch[1]); }, {tokens(), tokens()},
      static_cast<double>(setting.batch * setting.time), target);
}

// A layer in the place of a GRU, trained to give zeros.
Case gru_step(const Target& target) {
  Generator generator(1);
  auto gru = std::make_shared<WrappedMinGru>(WrappedMinGruOptions{.input_size = 10, .hidden_size = 100}, generator);
  cast_to(*gru, target.dtype);
  move_to(*gru, target.device);
  ParameterGroup all{.name = "all", .weight_decay = 0.1};
  for (const NamedTensor& parameter : parameters(*gru)) all.parameters.push_back(parameter.value);
  return step_case(
      "train/WrappedMinGru", "10 -> 100, 128 x 1000", gru, {all},
      [gru](const Tensors& batch, Generator*) { return mean(square(gru->forward(batch[0]).output)); },
      {random_normal({128, 1000, 10}, generator).to(target.dtype)}, 128 * 1000, target);
}

// The layer alone on one long sequence.
std::vector<Case> simple_gate_loop(const Target& target) {
  constexpr int64_t kTime = 65536, kChannels = 512;
  Generator generator(1);
  auto layer = std::make_shared<SimpleGateLoop>(SimpleGateLoopOptions{.dim = kChannels}, generator);
  Tensors inputs{random_normal({1, kTime, kChannels}, generator)};
  for (const NamedTensor& parameter : parameters(*layer)) inputs.push_back(parameter.value);
  const Op op = [layer](const Tensors& in) -> Tensors {
    size_t next = 1;
    for_each_tensor(*layer, [&](const std::string&, Tensor& value, Role) { value = in[next++]; });
    return {layer->forward(in[0]).output};
  };
  // In x a channel: the norm moves 2, the projection 4, the scan 4; on the way back 3, 8 and 7.
  const double elements = static_cast<double>(kTime * kChannels);
  const double unit = elements * static_cast<double>(size_of(target.dtype));
  Target here = target;
  here.verify = false;  // minutes on the CPU
  return both_directions(here, "layer/SimpleGateLoop", "1 x 65536 x 512", inputs, op,
                         {elements, 10 * unit, 28 * unit, 6 * elements * kChannels});
}

// A token of each of `batch` sequences, logits back on the host.
Case decode_step(const Setting& setting, int64_t batch, const Target& target) {
  const std::shared_ptr<LanguageModel> model = model_of(setting, target);
  Generator generator(1);
  auto decoder = std::make_shared<Decoder>(*model, batch);
  decoder->prefill(random_integers({batch, 16}, generator, model->vocabulary()));
  const Tensor token = random_integers({batch}, generator, model->vocabulary());
  for (int warm_up = 0; warm_up < 3; ++warm_up) decoder->step(token);
  const double parameters = static_cast<double>(parameter_count(*model));
  return {"decode/" + std::string(setting.model),
          str(setting.label, ", batch ", batch),
          static_cast<double>(size_of(target.dtype)) * parameters,
          2 * parameters * static_cast<double>(batch),
          static_cast<double>(batch),
          [=] {
            static_cast<void>(model);  // the decoder only refers to it
            decoder->step(token);
          }};
}

}  // namespace

std::vector<CaseMaker> model_cases() {
  std::vector<CaseMaker> makers;
  for (const Setting& setting : kSettings) {
    makers.push_back({str("train/", setting.model, " ", setting.label, " ", setting.batch, "x", setting.time),
                      [&](const Target& target) { return std::vector{training_step(setting, target)}; }});
  }
  makers.push_back({"train/WrappedMinGru", [](const Target& target) { return std::vector{gru_step(target)}; }});
  makers.push_back({"layer/SimpleGateLoop", simple_gate_loop});
  for (const Setting* setting : {&kSettings[0], &kSettings[3]}) {
    for (int64_t batch : {1, 64}) {
      makers.push_back({str("decode/", setting->model, " ", setting->label, " ", batch),
                        [=](const Target& target) { return std::vector{decode_step(*setting, batch, target)}; }});
    }
  }
  return makers;
}

}  // namespace monoid::bench

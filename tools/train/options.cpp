#include "monoid/tools/train/options.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "monoid/core/device.h"
#include "monoid/core/dtype.h"
#include "monoid/core/error.h"
#include "monoid/core/runtime.h"
#include "monoid/models/catalog.h"
#include "monoid/models/config.h"
#include "monoid/tools/text/vocabulary.h"

namespace monoid {
namespace {

using Json = nlohmann::ordered_json;

// "depth=4" and "rnn=lstm": a value that is no JSON is a word.
std::pair<std::string, Json> parse_setting(const std::string& setting) {
  const size_t equals = setting.find('=');
  check(equals != std::string::npos && equals > 0, "--set wants key=value, got '", setting, "'");
  const std::string text = setting.substr(equals + 1);
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return {setting.substr(0, equals), value.is_discarded() ? Json(text) : value};
}

Json settings_object(const std::vector<std::string>& settings) {
  Json object = Json::object();
  for (const std::string& setting : settings) {
    const auto [key, value] = parse_setting(setting);
    object[key] = value;
  }
  return object;
}

}  // namespace

void TrainOptions::validate() const {
  const auto at_least = [](const char* flag, auto value, double least) {
    check(std::isfinite(static_cast<double>(value)) && static_cast<double>(value) >= least, flag, " is ", value,
          ", wanted ", least, " or more");
  };
  const auto fraction = [](const char* flag, double value) {
    check(value >= 0 && value < 1, flag, " is ", value, ", wanted 0 or more and less than 1");
  };
  check(dataset.empty() || data.empty(), "--dataset ", dataset, " and --data ", data, " are both given; use one");
  vocabulary_key(model);  // an unknown model is an Error
  if (!vocab.empty()) Vocabulary::parse_kind(vocab);
  const Device place = Device::parse(device);
  runtime(place);  // a GPU that cannot be used is an Error
  const DType type = parse_dtype(dtype), other = place.is_cpu() ? DType::f64 : DType::bf16;
  check(type == DType::f32 || type == other, "--dtype is ", dtype, ", wanted f32 or ", other, " on ", place);
  check(!tf32 || place.is_cuda(), "--tf32 is for --device cuda; leave it out on ", place);
  fraction("--val-fraction", val_fraction);
  fraction("--beta1", beta1);
  fraction("--beta2", beta2);
  for (const auto& [flag, value] : {std::pair("--steps", steps),
                                    {"--warmup", warmup},
                                    {"--decay-steps", decay_steps},
                                    {"--eval-every", eval_every},
                                    {"--save-every", save_every},
                                    {"--sample-length", sample_length},
                                    {"--threads", threads},
                                    {"--seed", seed}}) {
    at_least(flag, value, 0);
  }
  for (const auto& [flag, value] : {std::pair("--batch-size", batch_size),
                                    {"--context", context},
                                    {"--grad-accum", grad_accum},
                                    {"--segments", segments},
                                    {"--log-every", log_every}}) {
    at_least(flag, value, 1);
  }
  for (const auto& [flag, value] :
       {std::pair("--lr", lr), {"--min-lr", min_lr}, {"--weight-decay", weight_decay}, {"--clip", clip}}) {
    at_least(flag, value, 0);
  }
  check(dropout == -1 || (dropout >= 0 && dropout < 1), "--dropout is ", dropout,
        ", wanted 0 or more and less than 1 (or -1, the model's own)");
  check(start_lr == -1 || (std::isfinite(start_lr) && start_lr >= 0), "--start-lr is ", start_lr,
        ", wanted 0 or more (or -1, up from 0)");
  check(!carry_state || segments == 1, "--carry-state and --segments ", segments, " are both given; use one: streams ",
        "are never cut into crops");
  check(!recompute || !carries(), "--recompute is given with --", carry_state ? "carry-state" : "segments",
        "; use one: layers that read a state are kept whole");
  check(!resume || !overwrite, "--resume and --overwrite are both given; use one");
  settings_object(set);
}

std::string TrainOptions::json() const {
  TrainOptions copy = *this;
  Json object = Json::parse(write_config([&](ConfigVisitor& visitor) {
    copy.visit([&](const char* name, auto& value, const char*) { visitor.key(name, value); });
  }));
  object["set"] = settings_object(set);
  return object.dump(2);
}

void TrainOptions::read_json(const std::string& json, const std::string& origin) {
  Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  check(object.is_object(), "config: ", origin, " is not a JSON object");
  for (const char* about : {"model_config", "parameters", "version"}) object.erase(about);
  if (const auto settings = object.find("set"); settings != object.end()) {
    check(settings->is_object(), "config: 'set' in ", origin, " is ", settings->dump(),
          ", wanted an object of model settings");
    for (const auto& [key, value] : settings->items()) set.push_back(key + "=" + value.dump());
    object.erase(settings);
  }
  // A text given here replaces the one that options before it gave.
  if (object.contains("data") && !object.contains("dataset")) dataset.clear();
  if (object.contains("dataset") && !object.contains("data")) data.clear();
  const std::string owner = "config " + origin;
  read_config(owner, object.dump(), [&](ConfigVisitor& visitor) {
    visit([&](const char* name, auto& value, const char*) { visitor.key(name, value); });
  });
}

void TrainOptions::check_continues(const TrainOptions& begun) const {
  static const std::vector<std::string> kFree{"out",           "data",      "data-dir",   "steps",
                                              "eval-every",    "log-every", "save-every", "threads",
                                              "sample-length", "device",    "cuda-graph", "recompute"};
  const Json before = Json::parse(begun.json()), after = Json::parse(json());
  for (const auto& [name, value] : after.items()) {
    if (value == before[name] || std::find(kFree.begin(), kFree.end(), name) != kFree.end()) continue;
    fail("--resume: the run was started with --", name, " ", before[name].dump(), ", not ", value.dump(),
         "; leave it out, or start a new run in another --out");
  }
}

std::string TrainOptions::model_settings(int64_t vocabulary) const {
  Json settings = settings_object(set);
  const std::string size = vocabulary_key(model);
  check(!settings.contains(size) || settings[size] == vocabulary, "--set ", size, ": the text has ", vocabulary,
        " tokens; leave this key out");
  settings[size] = vocabulary;
  if (dropout >= 0) {
    const std::string key = dropout_key(model);
    check(!key.empty(), "--dropout: ", model, " has no dropout");
    settings[key] = dropout;
  }
  return settings.dump();
}

Generator random_stream(const TrainOptions& options, RandomStream which) {
  const auto words = philox(static_cast<uint64_t>(options.seed), static_cast<uint64_t>(which));
  return Generator(uint64_t{words[0]} << 32 | words[1]);
}

}  // namespace monoid

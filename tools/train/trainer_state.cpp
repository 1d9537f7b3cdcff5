#include "monoid/tools/train/trainer_state.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "monoid/core/atomic_file.h"
#include "monoid/core/error.h"
#include "monoid/tools/text/files.h"

namespace monoid {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Generator& generator) { return {{"seed", generator.seed()}, {"offset", generator.offset()}}; }
Generator generator_from(const Json& json) {
  return Generator(json.at("seed").get<uint64_t>(), json.at("offset").get<uint64_t>());
}

}  // namespace

void write_trainer_state(const std::filesystem::path& file, const TrainerState& state) {
  const Json json{{"step", state.step},
                  {"generators", {{"batches", to_json(state.batches)}, {"dropout", to_json(state.dropout)}}},
                  {"position", state.position},
                  {"best_val_loss", std::isfinite(state.best_loss) ? Json(state.best_loss) : Json()},
                  {"context", state.context},
                  {"text", {{"name", state.text}, {"crc32", state.text_checksum}}}};
  write_file_atomically(file, json.dump(2) + "\n");
}

TrainerState read_trainer_state(const std::filesystem::path& file) {
  const std::string text = read_text(file);
  try {
    const Json json = Json::parse(text);
    TrainerState state;
    state.step = json.at("step").get<int64_t>();
    state.batches = generator_from(json.at("generators").at("batches"));
    state.dropout = generator_from(json.at("generators").at("dropout"));
    state.position = json.value("position", int64_t{0});
    if (const Json& best = json.at("best_val_loss"); !best.is_null()) state.best_loss = best.get<double>();
    state.context = json.at("context").get<int64_t>();
    state.text = json.at("text").at("name").get<std::string>();
    state.text_checksum = json.at("text").at("crc32").get<uint32_t>();
    return state;
  } catch (const Json::exception& error) {
    fail("checkpoint: ", file, " is damaged: ", error.what());
  }
}

}  // namespace monoid

#include "monoid/tools/text/trained.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "monoid/core/error.h"
#include "monoid/models/checkpoint.h"
#include "monoid/tools/text/files.h"

namespace monoid {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUsualContext = 256;  // for a checkpoint that `train` did not write

int64_t training_context(const fs::path& checkpoint) {
  const fs::path file = checkpoint / kTrainerFile;
  if (!fs::exists(file)) return kUsualContext;
  const auto json = nlohmann::json::parse(read_text(file), nullptr, /*allow_exceptions=*/false);
  check(json.is_object() && json.contains("context") && json["context"].is_number_integer(), "checkpoint: ", file,
        " is damaged");
  return json["context"].get<int64_t>();
}

}  // namespace

fs::path find_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  for (const fs::path& candidate : {folder, folder / "checkpoint"}) {
    if (fs::exists(candidate / "model.safetensors", ignored)) return candidate;
  }
  fail("checkpoint: there is no model.safetensors in ", folder, " or in ", folder / "checkpoint");
}

Vocabulary load_vocabulary(const fs::path& checkpoint) {
  const fs::path file = checkpoint / kVocabularyFile;
  return Vocabulary::from_json(read_text(file), file.string());
}

Trained load_trained(const fs::path& folder, Device device) {
  const fs::path checkpoint = find_checkpoint(folder);
  Trained trained{load_model(checkpoint), load_vocabulary(checkpoint), training_context(checkpoint)};
  check(trained.model->vocabulary() == trained.vocabulary.size(), "checkpoint: the model in ", checkpoint, " knows ",
        trained.model->vocabulary(), " tokens and its ", kVocabularyFile, " ", trained.vocabulary.size(),
        "; they do not belong together");
  const DType dtype = parameters(*trained.model).front().value.dtype();
  if (device.is_cpu() && dtype == DType::bf16) cast_to(*trained.model, DType::f32);  // which computes no bf16
  move_to(*trained.model, device);
  return trained;
}

}  // namespace monoid

#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "monoid/models/language_model.h"

namespace monoid {

/// Saves a model as a folder: `config.json` (Hugging Face style: "model_type", "dtype", then the configuration) and
/// `model.safetensors`. The folder appears complete or not at all; a checkpoint that was there is replaced.
void save_model(const std::filesystem::path& folder, LanguageModel& model);

/// Writes the two files into a folder that exists: for a caller that adds files of its own inside
/// replace_folder_atomically.
void write_model(const std::filesystem::path& folder, LanguageModel& model);

/// Builds the model that config.json describes (in its dtype, on the CPU) and loads its parameters. A missing,
/// truncated or unfitting file is an Error of one sentence.
std::unique_ptr<LanguageModel> load_model(const std::filesystem::path& folder);

/// Lets `write` fill an empty folder beside `folder`, flushes it and puts it in place in one step. A folder that was
/// there disappears, so it must be empty or hold a model.safetensors, as checkpoints do; anything else is an Error.
void replace_folder_atomically(const std::filesystem::path& folder,
                               const std::function<void(const std::filesystem::path& temporary)>& write);

}  // namespace monoid

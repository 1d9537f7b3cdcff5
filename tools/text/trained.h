#pragma once

#include <filesystem>
#include <memory>

#include "monoid/models/language_model.h"
#include "monoid/tools/text/vocabulary.h"

namespace monoid {

inline constexpr const char kVocabularyFile[] = "vocab.json";
inline constexpr const char kTrainerFile[] = "trainer.json";

/// A trained model with what it takes to speak to it.
struct Trained {
  std::unique_ptr<LanguageModel> model;
  Vocabulary vocabulary;
  int64_t context;  // tokens a training window had
};

/// The checkpoint that a user means by a folder: the folder itself, or the `checkpoint` inside a run folder. An Error
/// says where it looked.
std::filesystem::path find_checkpoint(const std::filesystem::path& folder);

/// The vocabulary of a checkpoint.
Vocabulary load_vocabulary(const std::filesystem::path& checkpoint);

/// Loads a checkpoint that `train` wrote. A missing, truncated or unfitting file is an Error of one sentence.
Trained load_trained(const std::filesystem::path& folder, Device device = kCpu);

}  // namespace monoid

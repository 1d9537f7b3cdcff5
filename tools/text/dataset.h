#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "monoid/tools/text/vocabulary.h"

namespace monoid {

/// A text to train on, and how it is usually treated.
struct Text {
  std::string name;
  std::string content;
  Vocabulary::Kind kind = Vocabulary::Kind::character;
  double validation_fraction = 0.1;
  double test_fraction = 0;
};

/// "source" (monoid's own files), "shakespeare_char", "enwik8".
std::vector<std::string> dataset_names();

/// A dataset by name. Files are looked for in `data_dir` (if not empty), $MONOID_DATA and the cache folder
/// ($XDG_CACHE_HOME or ~/.cache, then monoid); where there is none, the Error says which file to put where.
/// All of enwik8 splits 90M / 5M / 5M bytes.
Text load_dataset(const std::string& name, const std::filesystem::path& data_dir = {});
/// Any text file, also gzipped.
Text load_text(const std::filesystem::path& file);

/// Views of the parts of a text.
struct Split {
  std::span<const Token> train, validation, test;
};

/// Cuts a text in this order: the training part, then validation, then test.
Split split_tokens(std::span<const Token> tokens, double validation_fraction, double test_fraction);

}  // namespace monoid

#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace monoid {

struct ConvertOptions {
  std::filesystem::path input, out;
  std::string source;            // of a reference; empty: what the file says, or what fits
  std::filesystem::path config;  // of its arguments; empty: what the file says, or config.json beside it
  std::string prefix;            // of its names, taken off; tensors without it are passed over
  std::string vocab;             // "byte" or a vocab.json, for generate and eval
  bool overwrite = false;
};

/// The language models of references that can be converted.
std::vector<std::string> convertible_sources();

/// Turns a reference's .safetensors file into a checkpoint folder, or a checkpoint folder into such a file: what
/// `input` is decides. Returns a line that says what was done. Whatever does not fit is an Error, and then nothing is
/// written.
std::string convert(const ConvertOptions& options);

}  // namespace monoid

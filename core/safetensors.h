#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "monoid/core/tensor.h"

namespace monoid {

/// Named CPU tensors and string metadata: the content of one .safetensors file.
struct SafeTensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads a file strictly: header length and syntax, duplicate keys, dtypes, shapes, overlaps, holes and trailing bytes
/// are each an Error that names the file and the tensor. F16 is widened to f32; dtypes monoid does not store are
/// errors.
SafeTensors read_safetensors(const std::filesystem::path& path);

/// Writes tensors sorted by (alignment, name) with `format = pt` in the metadata, so that PyTorch reads them.
/// The file appears complete or not at all: it is written beside its name, flushed, and renamed.
void write_safetensors(const std::filesystem::path& path, const SafeTensors& content);

/// Writes `bytes` to a file the same all-or-nothing way; for the JSON files of a checkpoint.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace monoid

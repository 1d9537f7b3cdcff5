#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "monoid/core/atomic_file.h"
#include "monoid/core/tensor.h"

namespace monoid {

/// Named tensors and string metadata: the content of one .safetensors file.
struct SafeTensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads a file strictly, into CPU tensors: header length and syntax, duplicate keys, dtypes, shapes, overlaps, holes
/// and trailing bytes are each an Error that names the file and the tensor. F16 is widened to f32; a dtype that monoid
/// does not store is an Error.
SafeTensors read_safetensors(const std::filesystem::path& path);

/// Writes tensors of any strides and device, sorted by (alignment, name), with `format = pt` in the metadata, so that
/// PyTorch reads them. All or nothing, as AtomicFile.
void write_safetensors(const std::filesystem::path& path, const SafeTensors& content);

}  // namespace monoid

#pragma once

// What the safetensors reader and writer share; not installed.

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "monoid/core/dtype.h"

namespace monoid::safetensors {

static_assert(std::endian::native == std::endian::little, "safetensors bytes are copied as they are");

inline constexpr uint64_t kMaxHeader = 100'000'000;
inline constexpr uint64_t kLengthBytes = 8;
inline constexpr const char* kMetadata = "__metadata__";

struct FileType {
  const char* name;
  DType dtype;  // what it is read as
  uint64_t bytes;
};

inline constexpr std::array<FileType, 8> kFileTypes{{{"F32", DType::f32, 4},
                                                     {"F64", DType::f64, 8},
                                                     {"BF16", DType::bf16, 2},
                                                     {"I32", DType::i32, 4},
                                                     {"I64", DType::i64, 8},
                                                     {"U8", DType::u8, 1},
                                                     {"BOOL", DType::boolean, 1},
                                                     {"F16", DType::f32, 2}}};

inline const FileType* find_type(std::string_view name) {
  const auto found = std::find_if(kFileTypes.begin(), kFileTypes.end(), [&](const auto& t) { return t.name == name; });
  return found == kFileTypes.end() ? nullptr : &*found;
}

inline const char* file_type_name(DType dtype) {
  return std::find_if(kFileTypes.begin(), kFileTypes.end(), [&](const auto& t) { return t.dtype == dtype; })->name;
}

// Text from a file, fit for an error message: short, one line, no control bytes.
inline std::string shown(std::string_view text) {
  constexpr size_t kShown = 80;
  std::string line = "'";
  for (const char c : text.substr(0, kShown)) line += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
  return line + (text.size() > kShown ? "...'" : "'");
}

// The file an error is about. `damaged` is for content no writer should produce.
class Source {
 public:
  explicit Source(const std::filesystem::path& path) : path_(path) {}

  template <class... Parts>
  [[noreturn]] void damaged(const Parts&... parts) const {
    fail("safetensors: ", path_, ": ", parts..., "; the file is damaged or incomplete, copy or export it again");
  }
  template <class... Parts>
  [[noreturn]] void refused(const Parts&... parts) const {
    fail("safetensors: ", path_, ": ", parts...);
  }

 private:
  std::filesystem::path path_;
};

}  // namespace monoid::safetensors

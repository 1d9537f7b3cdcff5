#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace monoid {

/// A file that appears complete or not at all: it is written beside its final name, flushed to the disk, and renamed.
/// Until commit() a file of that name keeps its old content; without commit() nothing stays behind. Every failure (no
/// such folder, no permission, full disk) is an Error that names the file, the reason and what to do.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* bytes, size_t count);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  /// Makes the content appear under the final name.
  void commit();

 private:
  [[noreturn]] void fail_with(int error, const char* step) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

/// Writes `bytes` as the whole content of a file, all or nothing.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace monoid

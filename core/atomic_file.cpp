#include "monoid/core/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>

#include "monoid/core/error.h"

namespace monoid {
namespace {

const char* advice(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return "create its folder first";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder you may write to";
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "make room or choose another folder";
    case EISDIR:
      return "a folder has that name, choose another";
    default:
      return "check the folder and its disk";
  }
}

// Unique among running processes; a crash leaves at most one such file behind.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<int> count{0};
  std::filesystem::path name = path;
  name += str(".tmp-", getpid(), "-", count++);
  return name;
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  if (std::filesystem::is_directory(path_)) fail_with(EISDIR, "open");
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_with(errno, "open");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* bytes, size_t count) {
  constexpr size_t kMost = size_t{1} << 30;  // Linux moves at most 2 GiB a call
  const char* next = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(descriptor_, next, std::min(count, kMost));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_with(errno, "write");
    }
    next += written;
    count -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_with(errno, "flush");
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_with(errno, "close");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with(errno, "rename");
  temporary_.clear();
  // The rename itself is on the disk only once the folder is; a filesystem that cannot flush folders still renamed.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const int opened = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (opened >= 0) {
    ::fsync(opened);
    ::close(opened);
  }
}

void AtomicFile::fail_with(int error, const char* step) const {
  fail("file: cannot ", step, " ", path_, ": ", std::generic_category().message(error), "; ", advice(error),
       std::filesystem::exists(path_) ? " (what was there is untouched)" : "");
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace monoid

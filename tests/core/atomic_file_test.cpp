#include "monoid/core/atomic_file.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/temporary_folder.h"

namespace monoid {
namespace {

std::string content_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

// A disk with room for `bytes` more, as far as writes of this process can tell.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("a file is replaced only by commit", "[atomic_file]") {
  const test::TemporaryFolder folder;
  const auto path = folder / "state";
  write_file_atomically(path, "old");
  CHECK(content_of(path) == "old");
  {
    AtomicFile file(path);
    file.write("half of the n");
    CHECK(content_of(path) == "old");
  }
  CHECK(content_of(path) == "old");
  CHECK(files_in(folder.path()) == 1);
  {
    AtomicFile file(path);
    file.write("ne");
    file.write("w");
    file.commit();
  }
  CHECK(content_of(path) == "new");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("a relative file name is written to the working folder", "[atomic_file]") {
  const test::TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file_atomically("here", "text");
  std::filesystem::current_path(before);
  CHECK(content_of(folder / "here") == "text");
}

TEST_CASE("a full disk is an error that leaves the old file and nothing else", "[atomic_file]") {
  const test::TemporaryFolder folder;
  const auto path = folder / "state";
  write_file_atomically(path, "old");
  {
    const FullDisk full(4096);
    CHECK_THROWS_WITH(write_file_atomically(path, std::string(100'000, 'x')),
                      ContainsSubstring("state") && ContainsSubstring("File too large") &&
                          ContainsSubstring("make room") && ContainsSubstring("untouched"));
  }
  CHECK(content_of(path) == "old");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("a folder that is missing, or is a file, or has the file's name is an error that says so", "[atomic_file]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(write_file_atomically(folder / "absent" / "state", "x"),
                    ContainsSubstring("absent/state") && ContainsSubstring("create its folder"));
  write_file_atomically(folder / "file", "x");
  CHECK_THROWS_WITH(write_file_atomically(folder / "file" / "state", "x"), ContainsSubstring("Not a directory"));
  CHECK_THROWS_WITH(write_file_atomically(folder.path(), "x"), ContainsSubstring("a folder has that name"));
  CHECK_THROWS_WITH(write_file_atomically("/proc/absent/state", "x"), ContainsSubstring("cannot open"));
}

}  // namespace monoid

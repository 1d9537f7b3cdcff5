#include "monoid/tools/text/files.h"

#include <zlib.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>

#include "monoid/core/error.h"

namespace monoid {
namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  std::error_code ignored;
  check(fs::exists(path, ignored), "text: there is no file ", path);
  check(!fs::is_directory(path, ignored), "text: ", path, " is a folder, wanted a text file");
  // zlib hands plain files through unchanged.
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose_r);
  check(file != nullptr, "text: cannot open ", path, ": ", std::strerror(errno));
  gzbuffer(file.get(), 1 << 18);

  std::string text;
  constexpr unsigned kChunk = 1 << 20;
  for (int count = 1; count > 0;) {
    const size_t size = text.size();
    text.resize(size + kChunk);
    count = gzread(file.get(), text.data() + size, kChunk);
    text.resize(size + static_cast<size_t>(count > 0 ? count : 0));
  }
  int code = Z_OK;
  const char* reason = gzerror(file.get(), &code);  // a gzip file cut short reads as Z_BUF_ERROR at its end
  check(code == Z_OK || code == Z_STREAM_END, "text: cannot read ", path, ": ",
        code == Z_ERRNO       ? std::strerror(errno)
        : code == Z_BUF_ERROR ? "the gzip file is cut short"
                              : reason);
  check(!text.empty(), "text: ", path, " is empty");
  return text;
}

uint32_t checksum(std::string_view text) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

fs::path source_root() {
  std::error_code ignored;
  if (const char* chosen = std::getenv("MONOID_SOURCE"); chosen && *chosen) {
    check(fs::is_directory(chosen, ignored), "source: $MONOID_SOURCE is '", chosen, "', which is not a folder");
    return chosen;
  }
  const fs::path installed = fs::read_symlink("/proc/self/exe", ignored).parent_path() / "../share/monoid";
  for (const fs::path& root : {fs::path(MONOID_SOURCE_DIR), installed.lexically_normal()}) {
    if (fs::is_directory(root / "core", ignored)) return root;
  }
  fail("source: monoid's own source files are not on this machine; set $MONOID_SOURCE to the folder that holds core/");
}

}  // namespace monoid

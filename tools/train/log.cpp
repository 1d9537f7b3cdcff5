#include "monoid/tools/train/log.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "monoid/core/atomic_file.h"
#include "monoid/core/error.h"

namespace monoid {
namespace {

using Json = nlohmann::ordered_json;

std::string lines_up_to(const std::filesystem::path& path, int64_t last) {
  std::ifstream file(path);
  std::string kept;
  for (std::string line; std::getline(file, line);) {
    const Json entry = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (entry.is_object() && entry.value("step", last + 1) <= last) kept += line + "\n";
  }
  return kept;
}

}  // namespace

Log::Log(const std::filesystem::path& path, int64_t last) : path_(path), file_(nullptr, std::fclose) {
  write_file_atomically(path, lines_up_to(path, last));
  file_.reset(std::fopen(path.c_str(), "a"));
  check(file_ != nullptr, "log: cannot open ", path, ": ", std::strerror(errno));
}

void Log::write(const LogEntry& entry) {
  Json line{{"step", entry.step},
            {"train_loss", entry.train_loss},
            {"lr", entry.lr},
            {"grad_norm", entry.grad_norm},
            {"tokens_per_s", entry.tokens_per_s}};
  if (entry.validation) {
    line["val_loss"] = entry.validation->loss;
    line["val_bpc"] = entry.validation->bits();
  }
  const std::string text = line.dump() + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size();
  check(written && std::fflush(file_.get()) == 0, "log: cannot write ", path_, ": ", std::strerror(errno),
        "; the last checkpoint is whole, go on from it with --resume");
}

}  // namespace monoid

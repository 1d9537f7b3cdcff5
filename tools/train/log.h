#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "monoid/tools/text/evaluation.h"

namespace monoid {

/// One line of log.jsonl.
struct LogEntry {
  int64_t step = 0;
  double train_loss = 0, lr = 0, grad_norm = 0, tokens_per_s = 0;
  std::optional<Evaluation> validation;
};

/// log.jsonl: one JSON object a line, on the disk as soon as it is written.
class Log {
 public:
  /// Appends to the file, after dropping what lies behind step `last` (a crashed run's steps since its checkpoint) and
  /// lines cut short.
  Log(const std::filesystem::path& path, int64_t last);

  /// A full disk is an Error.
  void write(const LogEntry& entry);

 private:
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

}  // namespace monoid

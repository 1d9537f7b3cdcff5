#pragma once

#include <filesystem>
#include <string>

#include "monoid/models/language_model.h"
#include "monoid/tools/train/options.h"

namespace monoid {

inline constexpr const char kConfigFile[] = "config.json";
inline constexpr const char kLogFile[] = "log.jsonl";
inline constexpr const char kPlotFile[] = "loss.svg";
inline constexpr const char kSampleFile[] = "sample.txt";

/// Where a run lives: config.json, log.jsonl, checkpoint/ (the latest, to resume from), best/ (the parameters with the
/// lowest validation loss), loss.svg and sample.txt.
class RunFolder {
 public:
  /// Refuses a folder with something in it unless the options resume or overwrite; touches nothing yet.
  explicit RunFolder(const TrainOptions& options);

  /// Makes the folder for a new run, without what an overwritten one left there.
  void begin();
  /// Writes config.json: every option by its flag's name, then the model they gave.
  void write_config(const TrainOptions& options, LanguageModel& model);

  std::filesystem::path operator/(const char* name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoint() const { return path_ / "checkpoint"; }
  std::filesystem::path best() const { return path_ / "best"; }

 private:
  std::filesystem::path path_;
  bool overwrite_;
};

}  // namespace monoid

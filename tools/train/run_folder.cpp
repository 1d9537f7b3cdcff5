#include "monoid/tools/train/run_folder.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "monoid/core/atomic_file.h"
#include "monoid/core/error.h"
#include "monoid/core/version.h"

namespace monoid {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

RunFolder::RunFolder(const TrainOptions& options) : path_(options.out), overwrite_(options.overwrite) {
  std::error_code error;
  const bool taken = fs::exists(path_, error) && !(fs::is_directory(path_, error) && fs::is_empty(path_, error));
  check(!taken || options.resume || overwrite_, "the run folder ", path_, " exists already; --resume goes on with it, ",
        "--overwrite starts anew, or name another with --out");
}

void RunFolder::begin() {
  std::error_code error;
  fs::create_directories(path_, error);
  check(!error && fs::is_directory(path_), "cannot make the run folder ", path_, ": ",
        error ? error.message() : "it is a file", "; choose another with --out");
  if (overwrite_) {
    // Only what a run writes: the folder may hold other things.
    for (const fs::path& old :
         {path_ / kConfigFile, path_ / kLogFile, path_ / kPlotFile, path_ / kSampleFile, checkpoint(), best()}) {
      fs::remove_all(old, error);
      check(!error, "cannot remove ", old, " of the run to overwrite: ", error.message());
    }
  }
}

void RunFolder::write_config(const TrainOptions& options, LanguageModel& model) {
  Json json = Json::parse(options.json());
  json["model_config"] = Json::parse(model.config());
  json["parameters"] = parameter_count(model);
  json["version"] = kVersion;
  write_file_atomically(path_ / kConfigFile, json.dump(2) + "\n");
}

}  // namespace monoid

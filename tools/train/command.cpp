#include <CLI/CLI.hpp>
#include <iostream>

#include "monoid/core/error.h"
#include "monoid/models/catalog.h"
#include "monoid/tools/text/command_line.h"
#include "monoid/tools/text/files.h"
#include "monoid/tools/train/options.h"
#include "monoid/tools/train/run_folder.h"

namespace monoid {
namespace {

namespace fs = std::filesystem;

// Flags that say where the options come from, and so are read before them.
struct Sources {
  std::string preset, config;
};

std::optional<int> read_flags(int argc, const char* const* argv, TrainOptions& options, Sources& sources) {
  CLI::App app(
      "Trains a language model on a text. Ctrl-C finishes the step, saves and exits (130); --resume goes on\n"
      "bit for bit where a run stopped.",
      "train");
  app.get_formatter()->column_width(30);
  options.visit([&](const char* name, auto& value, const char* help) {
    app.add_option(str("--", name), value, help)->capture_default_str();
  });
  std::vector<std::string> settings;
  app.add_option("--set", settings, "key=value: a setting of the model's configuration (repeatable)")
      ->expected(1)
      ->take_all();
  app.add_option("--preset", sources.preset, "A named set of options; tiny is that of --model");
  app.add_option("--config", sources.config, "A JSON file of options by their flags' names");
  app.add_flag("--resume", options.resume, "Go on with the run in --out");
  app.add_flag("--overwrite", options.overwrite, "Start anew in a run folder that exists");
  app.add_flag_callback(
      "--list-models",
      [] {
        for (const std::string& model : model_names()) std::cout << model << "\n";
        throw CLI::Success();
      },
      "The models, a name a line");
  add_version(app);
  app.footer([] {
    std::string presets = "Presets:";
    for (const std::string& preset : preset_names()) presets += " " + preset;
    return presets;
  });
  const std::optional<int> done = parse_command_line(app, argc, argv);
  options.set.insert(options.set.end(), settings.begin(), settings.end());
  return done;
}

// A preset by its name, or by what follows its model's: "tiny" of minlm is minlm-tiny.
void read_preset(const std::string& name, const std::string& model, TrainOptions& options) {
  const fs::path folder = source_root() / "tools/train/presets";
  for (const std::string& file : {name, model + "-" + name}) {
    const fs::path path = folder / (file + ".json");
    if (fs::exists(path)) return options.read_json(read_text(path), path.string());
  }
  std::string names;
  for (const std::string& preset : preset_names()) names += (names.empty() ? "" : ", ") + preset;
  const std::string near = nearest(name, preset_names());
  fail("--preset: there is no '", name, "' and no '", model, "-", name, "'",
       near.empty() ? "" : "; did you mean " + near + "?", "; the presets are ", names);
}

std::string default_folder(const TrainOptions& options) {
  const std::string text = options.data.empty() ? options.dataset : fs::path(options.data).stem().string();
  return "runs/" + options.model + "-" + (text.empty() ? "source" : text);
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  try {
    for (const auto& file : fs::directory_iterator(source_root() / "tools/train/presets")) {
      if (file.path().extension() == ".json") names.push_back(file.path().stem().string());
    }
  } catch (const std::exception&) {
    // Without the source tree there are no presets, and --help still helps.
  }
  std::sort(names.begin(), names.end());
  return names;
}

TrainCommand read_train_command(int argc, const char* const* argv) {
  Sources sources;
  TrainOptions first_look;
  if (const auto done = read_flags(argc, argv, first_look, sources)) return {first_look, done};

  const auto with_preset_config_and_flags = [&](TrainOptions options) {
    if (!sources.preset.empty()) read_preset(sources.preset, first_look.model, options);
    if (!sources.config.empty()) options.read_json(read_text(sources.config), sources.config);
    if (!first_look.data.empty()) options.dataset.clear();
    if (!first_look.dataset.empty()) options.data.clear();
    read_flags(argc, argv, options, sources);
    if (options.out.empty()) options.out = default_folder(options);
    if (!options.data.empty()) options.data = fs::absolute(options.data);
    options.validate();
    return options;
  };
  TrainOptions options = with_preset_config_and_flags({});
  if (options.resume) {
    const fs::path file = fs::path(options.out) / kConfigFile;
    check(fs::exists(file), "--resume: there is no run in ", options.out);
    TrainOptions begun;
    begun.read_json(read_text(file), file.string());
    begun.out = options.out;
    options = with_preset_config_and_flags(begun);
    options.check_continues(begun);
  }
  return {options, std::nullopt};
}

}  // namespace monoid

#include "monoid/tools/text/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <system_error>

#include "monoid/core/error.h"
#include "monoid/tools/text/files.h"

namespace monoid {
namespace {

namespace fs = std::filesystem;

constexpr size_t kEnwik8Bytes = 100'000'000;

std::vector<fs::path> data_folders(const fs::path& data_dir) {
  std::vector<fs::path> folders;
  const auto variable = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (!data_dir.empty()) folders.push_back(data_dir);
  if (const fs::path chosen = variable("MONOID_DATA"); !chosen.empty()) folders.push_back(chosen);
  if (const fs::path cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    folders.push_back(cache / "monoid");
  } else if (const fs::path home = variable("HOME"); !home.empty()) {
    folders.push_back(home / ".cache/monoid");
  }
  return folders;
}

// The first of `files`, plain or gzipped, in the first folder that has one.
fs::path find_file(const std::string& dataset, const std::vector<std::string>& files, const std::string& about,
                   const fs::path& data_dir) {
  const std::vector<fs::path> folders = data_folders(data_dir);
  std::error_code ignored;
  for (const fs::path& folder : folders) {
    for (const std::string& file : files) {
      for (const char* ending : {"", ".gz"}) {
        const fs::path path = folder / (file + ending);
        if (fs::is_regular_file(path, ignored)) return path;
      }
    }
  }
  std::string places;
  for (const fs::path& folder : folders) places += (places.empty() ? "" : ", ") + folder.string();
  fail("dataset ", dataset, ": there is no ", files.front(), " in ", places.empty() ? "any data folder" : places,
       "; put ", about, " there as ", files.front(), " or ", files.front(),
       ".gz, or name its folder with --data-dir or $MONOID_DATA");
}

// The rooms of the tree in order, each file under its name, so that the text is the same on every machine.
std::string own_sources() {
  static const std::set<fs::path> kEndings{".h", ".cpp", ".cu", ".cuh"};
  const fs::path root = source_root();
  std::string text;
  for (const char* room : {"core", "kernels", "ops", "layers", "models", "tools", "tests"}) {
    std::vector<fs::path> files;
    std::error_code none;
    for (fs::recursive_directory_iterator at(root / room, none), end; at != end; at.increment(none)) {
      if (at->is_regular_file() && at->file_size() > 0 && kEndings.contains(at->path().extension()))
        files.push_back(at->path());
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
      text += "// " + file.lexically_relative(root).generic_string() + "\n" + read_text(file) + "\n";
    }
  }
  check(!text.empty(), "dataset source: ", root, " holds no source files; set $MONOID_SOURCE to monoid's source tree");
  return text;
}

}  // namespace

std::vector<std::string> dataset_names() { return {"source", "shakespeare_char", "enwik8", "tinystories"}; }

Text load_dataset(const std::string& name, const fs::path& data_dir) {
  if (name == "source") return {name, own_sources()};
  if (name == "shakespeare_char") {
    const auto file = find_file(name, {"tinyshakespeare.txt", "shakespeare_char/input.txt", "input.txt"},
                                "the 1,115,394 characters of tinyshakespeare", data_dir);
    return {name, read_text(file)};
  }
  if (name == "enwik8") {
    const auto file = find_file(name, {"enwik8", "enwik8_prefix"}, "the 100,000,000 bytes of enwik8", data_dir);
    Text text{name, read_text(file), Vocabulary::Kind::byte};
    if (text.content.size() == kEnwik8Bytes) text.validation_fraction = text.test_fraction = 0.05;
    return text;
  }
  if (name == "tinystories") {
    const auto file = find_file(name, {"TinyStoriesV2-GPT4-train.txt", "TinyStories-train.txt"},
                                "stories of TinyStories as one text, or a part of them,", data_dir);
    return {name, read_text(file), Vocabulary::Kind::byte};
  }
  const std::string near = nearest(name, dataset_names());
  fail("dataset: there is no '", name, "'; ", near.empty() ? "" : str("did you mean ", near, "? "),
       "use source, shakespeare_char, enwik8, tinystories, or --data FILE for a text of your own");
}

Text load_text(const fs::path& file) { return {file.filename().string(), read_text(file)}; }

Split split_tokens(std::span<const Token> tokens, double validation_fraction, double test_fraction) {
  const double held_out = validation_fraction + test_fraction;
  check(validation_fraction > 0 && test_fraction >= 0 && held_out < 1, "split: the validation and test parts take ",
        validation_fraction, " and ", test_fraction,
        " of the text; wanted a validation part above 0 and something left to train on");
  const auto count = static_cast<double>(tokens.size());
  const auto train = static_cast<size_t>(count * (1 - held_out));
  const size_t rest = tokens.size() - train;
  const auto test = static_cast<size_t>(std::round(static_cast<double>(rest) * test_fraction / held_out));
  return {tokens.first(train), tokens.subspan(train, rest - test), tokens.last(test)};
}

}  // namespace monoid

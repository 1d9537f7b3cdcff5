#include "monoid/tools/convert/convert.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "monoid/core/atomic_file.h"
#include "monoid/core/error.h"
#include "monoid/core/safetensors.h"
#include "monoid/models/catalog.h"
#include "monoid/models/checkpoint.h"
#include "monoid/models/import.h"
#include "monoid/tools/text/files.h"
#include "monoid/tools/text/progress.h"
#include "monoid/tools/text/trained.h"

namespace monoid {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Named = std::map<std::string, Tensor>;

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += "\n  " + name;
  return text;
}

std::string metadata(const SafeTensors& content, const char* key) {
  const auto found = content.metadata.find(key);
  return found == content.metadata.end() ? "" : found->second;
}

Named without_prefix(const SafeTensors& content, const ConvertOptions& options) {
  Named tensors;
  for (const auto& [name, tensor] : content.tensors) {
    if (name.starts_with(options.prefix)) tensors[name.substr(options.prefix.size())] = tensor;
  }
  check(!tensors.empty(), options.input, " has no tensor", options.prefix.empty() ? "" : " below --prefix ",
        options.prefix);
  return tensors;
}

// The reference's arguments, without what Hugging Face adds to them.
std::string arguments(const SafeTensors& content, const ConvertOptions& options) {
  std::string text = metadata(content, "config"), origin = options.input.string();
  const fs::path beside = options.input.parent_path() / "config.json";
  const fs::path file = !options.config.empty() ? options.config : text.empty() && fs::exists(beside) ? beside : "";
  if (!file.empty()) {
    text = read_text(file);
    origin = file.string();
  }
  check(!text.empty(), options.input, " does not say what the model's arguments were, and there is no config.json ",
        "beside it; give them with --config FILE, a JSON object by their names");
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  check(json.is_object(), "config: ", origin, " is not a JSON object");
  for (const char* added :
       {"model_type", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}) {
    json.erase(added);
  }
  return json.dump();
}

// Arguments that do not say whether a head is tied, from a file that says so: a head of its own is not.
std::string with_tie(const ImportTable& table, const std::string& config, const Named& tensors) {
  Json json = Json::parse(config);
  if (table.tie_key.empty() || json.contains(table.tie_key)) return config;
  const auto head = tensors.find(table.echoes.front().reference), of = tensors.find(table.echoes.front().of);
  if (head == tensors.end() || of == tensors.end()) return config;
  if (head->second.to_vector<double>() == of->second.to_vector<double>()) return config;
  json[table.tie_key] = false;
  return json.dump();
}

std::unique_ptr<LanguageModel> build(const ImportTable& table, const std::string& config, const Named& tensors) {
  check(!table.model.empty(), table.source, " is a layer, and a checkpoint holds a language model; those are",
        list(convertible_sources()));
  Generator init(0);
  auto model = make_model(table.model, with_tie(table, config, tensors), init);
  const auto floating =
      std::find_if(tensors.begin(), tensors.end(), [](const auto& entry) { return is_floating(entry.second.dtype()); });
  if (floating != tensors.end()) cast_to(*model, floating->second.dtype());
  load_reference(*model, table, tensors);
  return model;
}

// The only reference that has these arguments and tensors.
std::unique_ptr<LanguageModel> build_what_fits(const std::string& config, const Named& tensors, std::string& source) {
  std::unique_ptr<LanguageModel> model;
  for (const std::string& candidate : convertible_sources()) {
    std::unique_ptr<LanguageModel> built;
    try {
      built = build(import_table(candidate), config, tensors);
    } catch (const Error&) {
      continue;
    }
    check(!model, "both ", source, " and ", candidate, " fit; choose one with --source");
    model = std::move(built);
    source = candidate;
  }
  check(model, "no reference has these arguments and tensors; --source NAME says what differs from it:",
        list(convertible_sources()));
  return model;
}

std::optional<Vocabulary> vocabulary_of(const std::string& chosen, const LanguageModel& model) {
  if (chosen.empty()) return std::nullopt;
  const auto vocabulary =
      chosen == "byte" ? Vocabulary(Vocabulary::Kind::byte, {}) : Vocabulary::from_json(read_text(chosen), chosen);
  check(vocabulary.size() == model.vocabulary(), "--vocab ", chosen, " has ", vocabulary.size(),
        " tokens and the model ", model.vocabulary());
  return vocabulary;
}

std::string summary(LanguageModel& model, const std::string& source, size_t tensors) {
  return str(model.type(), ", ", format_count(static_cast<double>(parameter_count(model))), " parameters, ", tensors,
             " tensors of ", source);
}

std::string import_file(const ConvertOptions& options) {
  const SafeTensors content = read_safetensors(options.input);
  const Named tensors = without_prefix(content, options);
  const std::string config = arguments(content, options);
  std::string source = !options.source.empty() ? options.source : metadata(content, "source");
  const auto model =
      source.empty() ? build_what_fits(config, tensors, source) : build(import_table(source), config, tensors);
  const auto vocabulary = vocabulary_of(options.vocab, *model);
  replace_folder_atomically(options.out, [&](const fs::path& temporary) {
    write_model(temporary, *model);
    if (vocabulary) write_file_atomically(temporary / kVocabularyFile, vocabulary->json());
  });
  return summary(*model, source, tensors.size()) + " -> checkpoint " + options.out.string();
}

std::string export_folder(const ConvertOptions& options) {
  check(options.config.empty() && options.vocab.empty(), options.input,
        " is a checkpoint, which knows its configuration; leave --config and --vocab out");
  const auto model = load_model(find_checkpoint(options.input));
  std::string source = options.source;
  for (const std::string& candidate : convertible_sources()) {
    if (source.empty() && import_table(candidate).model == model->type()) source = candidate;
  }
  check(!source.empty(), model->type(), " is no model of a reference, so there are no names to give its tensors");
  check(import_table(source).model == model->type(), "--source ", source, " is not what a ", model->type(), " is in");
  SafeTensors content;
  for (const auto& [name, tensor] : export_reference(*model, import_table(source)))
    content.tensors[options.prefix + name] = tensor;
  content.metadata = {{"source", source}, {"config", Json::parse(model->config()).dump()}};
  write_safetensors(options.out, content);
  return summary(*model, source, content.tensors.size()) + " -> " + options.out.string();
}

}  // namespace

std::vector<std::string> convertible_sources() {
  std::vector<std::string> sources = import_sources();
  std::erase_if(sources, [](const std::string& source) { return import_table(source).model.empty(); });
  return sources;
}

std::string convert(const ConvertOptions& options) {
  check(fs::exists(options.input), "there is no ", options.input);
  check(options.overwrite || !fs::exists(options.out), options.out, " exists already; --overwrite replaces it");
  return fs::is_directory(options.input) ? export_folder(options) : import_file(options);
}

}  // namespace monoid

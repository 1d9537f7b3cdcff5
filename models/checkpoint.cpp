#include "monoid/models/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "monoid/core/safetensors.h"
#include "monoid/models/catalog.h"

namespace monoid {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kConfigFile = "config.json";
constexpr const char* kParameterFile = "model.safetensors";

// The names PyTorch and Hugging Face use.
const char* long_name(DType dtype) {
  return dtype == DType::f64 ? "float64" : dtype == DType::bf16 ? "bfloat16" : "float32";
}

Json read_json(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), "load_model: cannot read ", path.string(), ": ", std::strerror(errno));
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  check(json.is_object(), "load_model: ", path.string(), " is not a JSON object; the file is damaged");
  return json;
}

// Takes a string out of the object, so that what is left is the model's own configuration.
std::string take_string(Json& json, const char* key, const fs::path& path) {
  const auto found = json.find(key);
  if (found == json.end()) return "";
  check(found->is_string(), "load_model: '", key, "' in ", path.string(), " is ", found->dump(), ", wanted a string");
  const std::string value = found->get<std::string>();
  json.erase(key);
  return value;
}

// The catalog's errors, with the file they came from.
template <class Function>
auto naming(const fs::path& path, Function&& function) {
  try {
    return function();
  } catch (const Error& error) {
    throw Error(str("load_model: ", path.string(), ": ", error.message()), error.site());
  }
}

void flush_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

void check_replaceable(const fs::path& folder) {
  if (!fs::exists(folder)) return;
  check(fs::is_directory(folder), "checkpoint: ", folder.string(), " exists and is not a folder");
  check(fs::is_empty(folder) || fs::exists(folder / kParameterFile), "checkpoint: ", folder.string(),
        " holds files but no ", kParameterFile, ", so it is no checkpoint and will not be replaced; choose another");
}

// Swaps two folders in one step where the file system can, and through a third name where it cannot.
void exchange(const fs::path& fresh, const fs::path& folder) {
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) return;
  const fs::path aside = fresh.string() + ".old";
  fs::rename(folder, aside);
  fs::rename(fresh, folder);
  fs::rename(aside, fresh);
}

}  // namespace

void replace_folder_atomically(const fs::path& folder, const std::function<void(const fs::path&)>& write) {
  fs::path target = fs::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "run/" names "run"
  const fs::path fresh = target.string() + str(".tmp-", ::getpid());
  try {
    check_replaceable(target);
    fs::create_directories(target.parent_path());
    fs::remove_all(fresh);
    fs::create_directory(fresh);
    write(fresh);
    flush_folder(fresh);
    if (fs::exists(target))
      exchange(fresh, target);
    else
      fs::rename(fresh, target);
    flush_folder(target.parent_path());
    fs::remove_all(fresh);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    fail("checkpoint: cannot write ", target.string(), ": ", error.code().message());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    throw;
  }
}

void write_model(const fs::path& folder, LanguageModel& model) {
  SafeTensors content;
  DType dtype = DType::f32;
  for (const auto& [name, value] : state_dict(model)) {
    content.tensors[name] = value.detach().to(kCpu);
    if (is_floating(value.dtype())) dtype = value.dtype();
  }
  Json config{{"model_type", model.type()}, {"dtype", long_name(dtype)}};
  config.update(Json::parse(model.config()));
  write_safetensors(folder / kParameterFile, content);
  write_file_atomically(folder / kConfigFile, config.dump(2) + "\n");
}

void save_model(const fs::path& folder, LanguageModel& model) {
  replace_folder_atomically(folder, [&](const fs::path& temporary) { write_model(temporary, model); });
}

std::unique_ptr<LanguageModel> load_model(const fs::path& folder) {
  check(fs::is_directory(folder), "load_model: there is no checkpoint folder ", folder.string());
  const fs::path config_path = folder / kConfigFile, parameter_path = folder / kParameterFile;
  Json config = read_json(config_path);
  const std::string type = take_string(config, "model_type", config_path);
  check(!type.empty(), "load_model: ", config_path.string(), " has no \"model_type\"");
  const std::string old_dtype = take_string(config, "torch_dtype", config_path);
  const std::string new_dtype = take_string(config, "dtype", config_path);
  const std::string dtype = !new_dtype.empty() ? new_dtype : !old_dtype.empty() ? old_dtype : "float32";
  for (const char* key : {"architectures", "transformers_version"}) config.erase(key);
  Generator init(0);
  auto model = naming(config_path, [&] {
    auto made = make_model(type, config.dump(), init);
    cast_to(*made, parse_dtype(dtype));
    return made;
  });
  check(fs::exists(parameter_path), "load_model: ", folder.string(), " has no ", kParameterFile);
  const SafeTensors content = read_safetensors(parameter_path);
  naming(parameter_path, [&] { load_state_dict(*model, content.tensors); });
  return model;
}

}  // namespace monoid

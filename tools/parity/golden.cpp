#include "monoid/tools/parity/golden.h"

#include "monoid/core/safetensors.h"

namespace monoid::parity {

Golden Golden::read(const std::filesystem::path& path) {
  SafeTensors file = read_safetensors(path);
  Golden golden{file.metadata["source"], file.metadata["config"], std::move(file.tensors), file.metadata["note"]};
  check(!golden.source.empty() && !golden.config.empty(), path.string(),
        " is no golden file: its metadata has no 'source' and 'config'");
  return golden;
}

const Tensor& Golden::get(const std::string& name) const {
  const auto found = tensors.find(name);
  check(found != tensors.end(), "the golden file has no '", name, "', which ", source, " needs");
  return found->second;
}

std::map<std::string, Tensor> Golden::group(const std::string& prefix) const {
  std::map<std::string, Tensor> members;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) members[name.substr(prefix.size())] = tensor;
  }
  return members;
}

int Golden::count(const std::string& prefix) const {
  int found = 0;
  while (has(str(prefix, found))) ++found;
  return found;
}

bool Golden::rounded_to_f32() const {
  return note.find("float32-rounded") != std::string::npos || note.find("f32-rounded") != std::string::npos;
}

}  // namespace monoid::parity

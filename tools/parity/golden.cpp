#include "monoid/tools/parity/golden.h"

#include "monoid/core/safetensors.h"

namespace monoid::parity {

Golden Golden::read(const std::filesystem::path& path) {
  SafeTensors file = read_safetensors(path);
  Golden golden{file.metadata["source"], file.metadata["config"], std::move(file.tensors)};
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

}  // namespace monoid::parity

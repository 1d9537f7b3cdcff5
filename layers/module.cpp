#include "monoid/layers/module.h"

#include <algorithm>
#include <set>

namespace monoid {
namespace {

using Action = std::function<void(const std::string&, Tensor&, Role)>;

class Walker : public Visitor {
 public:
  Walker(std::string prefix, const Action& action) : prefix_(std::move(prefix)), action_(action) {}

  void parameter(const std::string& name, Tensor& value) override { action_(prefix_ + name, value, Role::parameter); }
  void buffer(const std::string& name, Tensor& value) override { action_(prefix_ + name, value, Role::buffer); }
  void child(const std::string& name, Module& module) override {
    Walker walker(prefix_ + name + ".", action_);
    module.visit(walker);
  }

 private:
  std::string prefix_;
  const Action& action_;
};

// Collects one kind of difference and prints the first few of it.
class Differences {
 public:
  template <class... Parts>
  void add(const Parts&... parts) {
    constexpr size_t kShown = 8;
    if (lines_.size() < kShown) lines_.push_back(str("\n  ", parts...));
    ++count_;
  }
  size_t count() const { return count_; }
  std::string text() const {
    std::string all;
    for (const std::string& line : lines_) all += line;
    if (count_ > lines_.size()) all += str("\n  ... and ", count_ - lines_.size(), " more like the last");
    return all;
  }

 private:
  std::vector<std::string> lines_;
  size_t count_ = 0;
};

void replace_tensors(Module& module, const std::function<Tensor(const Tensor&)>& replacement) {
  for_each_tensor(module, [&](const std::string&, Tensor& value, Role role) {
    Tensor replaced = replacement(value);
    if (role == Role::parameter) replaced.set_requires_grad(value.requires_grad());
    value = replaced;
  });
}

}  // namespace

void for_each_tensor(Module& module, const Action& action) {
  Walker walker("", action);
  module.visit(walker);
}

std::vector<NamedTensor> parameters(Module& module) {
  std::vector<NamedTensor> found;
  for_each_tensor(module, [&](const std::string& name, Tensor& value, Role role) {
    if (role == Role::parameter) found.push_back({name, value});
  });
  return found;
}

std::vector<NamedTensor> state_dict(Module& module) {
  std::vector<NamedTensor> found;
  for_each_tensor(module, [&](const std::string& name, Tensor& value, Role) { found.push_back({name, value}); });
  return found;
}

void load_state_dict(Module& module, const std::map<std::string, Tensor>& tensors) {
  std::vector<NamedTensor> own = state_dict(module);
  Differences missing, unexpected, misshapen;
  std::set<std::string> wanted;
  std::vector<std::string> absent;
  for (const auto& [name, value] : own) {
    wanted.insert(name);
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      absent.push_back(name);
      missing.add("missing: ", name, " ", value.shape());
    } else if (!(found->second.shape() == value.shape())) {
      misshapen.add("wrong shape: ", name, " is ", found->second.shape(), ", wanted ", value.shape());
    }
  }
  for (const auto& [name, value] : tensors) {
    if (wanted.contains(name)) continue;
    const std::string near = nearest(name, absent);
    unexpected.add("unexpected: ", name, " ", value.shape(), near.empty() ? "" : "; did you mean " + near + "?");
  }
  const size_t differences = missing.count() + unexpected.count() + misshapen.count();
  check(differences == 0, "load_state_dict: ", differences, differences == 1 ? " tensor does" : " tensors do",
        " not fit", missing.text(), unexpected.text(), misshapen.text());
  for (auto& [name, value] : own) value.copy_from(tensors.at(name));
}

void move_to(Module& module, Device device) {
  replace_tensors(module, [&](const Tensor& value) { return value.device() == device ? value : value.to(device); });
}

void cast_to(Module& module, DType dtype) {
  check(is_floating(dtype), "cast_to: parameters are f32, f64 or bf16, got ", dtype);
  replace_tensors(module, [&](const Tensor& value) {
    return !is_floating(value.dtype()) || value.dtype() == dtype ? value : value.to(dtype);
  });
}

int64_t parameter_count(Module& module) {
  int64_t count = 0;
  for (const NamedTensor& parameter : parameters(module)) count += parameter.value.elements();
  return count;
}

void zero_grad(Module& module) {
  for (NamedTensor& parameter : parameters(module)) parameter.value.clear_grad();
}

}  // namespace monoid

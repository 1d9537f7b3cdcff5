#include "monoid/layers/state.h"

#include <algorithm>
#include <sstream>

#include "monoid/core/safetensors.h"

namespace monoid {
namespace {

constexpr const char* kOrderKey = "monoid.state";  // one name a line

}  // namespace

Tensor State::find(std::string_view name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const NamedTensor& entry) { return entry.name == name; });
  return found == tensors_.end() ? Tensor() : found->value;
}

Tensor State::get(std::string_view owner, std::string_view name, const Shape& wanted) const {
  const Tensor value = find(name);
  if (!value.defined()) {
    std::string held;
    for (const NamedTensor& entry : tensors_) held += (held.empty() ? "" : ", ") + entry.name;
    fail(owner, ": the state has no '", name, "'; it is another model's (it holds ", held, ")");
  }
  check(value.shape() == wanted, owner, ": the state's '", name, "' is ", describe(value), ", wanted ", wanted,
        "; a state belongs to one model and one batch size");
  return value;
}

void State::set(const std::string& name, const Tensor& value) {
  check_defined("State::set", name, value);
  for (NamedTensor& entry : tensors_) {
    if (entry.name != name) continue;
    entry.value = value;
    return;
  }
  tensors_.push_back({name, value});
}

void State::detach() {
  for (NamedTensor& entry : tensors_) entry.value = entry.value.detach();
}

void State::save(const std::filesystem::path& path) const {
  SafeTensors content;
  std::string order;
  for (const auto& [name, value] : tensors_) {
    content.tensors[name] = value.detach().to(kCpu);
    order += name + "\n";
  }
  content.metadata[kOrderKey] = order;
  write_safetensors(path, content);
}

State State::load(const std::filesystem::path& path, Device device) {
  SafeTensors content = read_safetensors(path);
  const auto order = content.metadata.find(kOrderKey);
  check(order != content.metadata.end(), "State::load: ", path.string(), " holds tensors but is not a saved state");
  State state;
  std::istringstream names(order->second);
  for (std::string name; std::getline(names, name);) {
    const auto found = content.tensors.find(name);
    check(found != content.tensors.end(), "State::load: ", path.string(), " lists '", name, "' but does not hold it");
    state.set(name, found->second.to(device));
  }
  check(state.size() == content.tensors.size(), "State::load: ", path.string(), " holds ", content.tensors.size(),
        " tensors but lists ", state.size());
  return state;
}

StateUpdate::StateUpdate(std::string_view owner, State* state, const Tensor& tokens, const Tensor& padding)
    : owner_(owner), state_(state) {
  check(tokens.defined() && tokens.rank() == 2, owner, ": tokens are ", describe(tokens), ", wanted [batch, time]");
  if (!padding.defined()) return;
  check(
      padding.shape() == Shape{tokens.size(0)} && padding.dtype() == DType::i32 && padding.device() == tokens.device(),
      owner, ": padding is ", describe(padding), ", wanted i32[", tokens.size(0), "] beside the tokens, ",
      describe(tokens));
  check(!state || state->empty(), owner, ": padding is for the beginning of sequences, and this state is further on; ",
        "give it with the first tokens only");
  padding_ = Padding(padding, tokens.size(1));
}

Tensor StateUpdate::before(const std::string& name, const Shape& wanted) const {
  return state_ && !state_->empty() ? state_->get(owner_, name, wanted) : Tensor();
}

void StateUpdate::after(const std::string& name, const Tensor& value) {
  if (state_) next_.set(name, value);
}

void StateUpdate::commit() {
  if (!state_) return;
  for (const NamedTensor& entry : state_->tensors())
    check(next_.find(entry.name).defined(), owner_, ": the state also holds '", entry.name,
          "', which this model does not have; it is another model's");
  *state_ = std::move(next_);
}

}  // namespace monoid

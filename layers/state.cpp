#include "monoid/layers/state.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <utility>

#include "monoid/core/safetensors.h"
#include "monoid/core/stream.h"
#include "monoid/ops/attention_cache.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

constexpr const char* kOrderKey = "monoid.state";    // one name a line
constexpr const char* kCachesKey = "monoid.caches";  // the same
constexpr const char* kStepsKey = "monoid.steps";
constexpr const char* kSteps = "steps";
constexpr const char* kPadding = "padding";

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> found;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) found.push_back(line);
  return found;
}

// The first `steps` of a cache in new memory with room for `capacity`; what is not written yet is zero, so that nothing
// that multiplies it by 0 can make a NaN.
Tensor moved(const Tensor& cache, int64_t steps, int64_t capacity) {
  Tensor wider = Tensor::zeros(cache.shape().with(1, capacity), cache.dtype(), cache.device());
  slice(wider, 1, 0, steps).copy_from(slice(cache, 1, 0, steps));
  return wider;
}

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

void State::clear() {
  const int64_t reserved = reserved_;
  *this = State();
  reserved_ = reserved;
}

void State::detach() {
  for (NamedTensor& entry : tensors_) entry.value = entry.value.detach();
}

Tensor State::filled(const std::string& name) const {
  const Tensor value = find(name);
  return is_cache(name) ? slice(value, 1, 0, steps_) : value;
}

int64_t State::room() const {
  int64_t room = std::numeric_limits<int64_t>::max();
  for (const std::string& name : caches_) room = std::min(room, find(name).size(1) - steps_);
  return room;
}

void State::make_room(int64_t steps) {
  const bool shared = written_ && *written_ != steps_;
  if (caches_.empty() || (!shared && room() >= steps)) return;
  check(!Graph::capturing(), "State::make_room: the caches hold ", steps_, " steps and have no room for ", steps,
        " more, which a graph that is recorded cannot change; make room before");
  for (NamedTensor& entry : tensors_) {
    if (!is_cache(entry.name)) continue;
    const int64_t capacity = entry.value.size(1);
    entry.value = moved(entry.value, steps_,
                        capacity - steps_ >= steps ? capacity : std::max({2 * capacity, steps_ + steps, reserved_}));
  }
  written_ = std::make_shared<int64_t>(steps_);
}

void State::advance(int64_t steps) {
  if (!find(kSteps).defined()) return;
  steps_ += steps;
  if (written_) *written_ = steps_;
}

void State::save(const std::filesystem::path& path) const {
  SafeTensors content;
  std::string order, caches;
  for (const auto& [name, value] : tensors_) {
    content.tensors[name] = filled(name).detach().to(kCpu);
    order += name + "\n";
    if (is_cache(name)) caches += name + "\n";
  }
  content.metadata[kOrderKey] = order;
  if (!caches.empty()) content.metadata[kCachesKey] = caches;
  if (find(kSteps).defined()) content.metadata[kStepsKey] = std::to_string(steps_);
  write_safetensors(path, content);
}

State State::load(const std::filesystem::path& path, Device device) {
  SafeTensors content = read_safetensors(path);
  const auto order = content.metadata.find(kOrderKey);
  check(order != content.metadata.end(), "State::load: ", path.string(), " holds tensors but is not a saved state");
  State state;
  for (const std::string& name : lines(order->second)) {
    const auto found = content.tensors.find(name);
    check(found != content.tensors.end(), "State::load: ", path.string(), " lists '", name, "' but does not hold it");
    state.set(name, found->second.to(device));
  }
  check(state.size() == content.tensors.size(), "State::load: ", path.string(), " holds ", content.tensors.size(),
        " tensors but lists ", state.size());
  if (const auto steps = content.metadata.find(kStepsKey); steps != content.metadata.end())
    state.steps_ = std::atoll(steps->second.c_str());
  for (const std::string& name : lines(content.metadata[kCachesKey])) {
    const Tensor cache = state.find(name);
    const bool fits =
        cache.defined() && cache.rank() >= 2 && content.metadata[kStepsKey] == std::to_string(cache.size(1));
    check(fits, "State::load: ", path.string(), " says that '", name, "' holds ", content.metadata[kStepsKey],
          " steps, but it is ", describe(cache));
    state.caches_.insert(name);
  }
  return state;
}

StateUpdate::StateUpdate(std::string_view owner, State* state, const Tensor& tokens, const Tensor& padding)
    : owner_(owner), state_(state), in_place_(Tape::current() == nullptr) {
  check(tokens.defined() && tokens.rank() == 2, owner, ": tokens are ", describe(tokens), ", wanted [batch, time]");
  batch_ = tokens.size(0);
  time_ = tokens.size(1);
  device_ = tokens.device();
  if (!padding.defined()) return;
  check(padding.shape() == Shape{batch_} && padding.dtype() == DType::i32 && padding.device() == device_, owner,
        ": padding is ", describe(padding), ", wanted i32[", batch_, "] beside the tokens, ", describe(tokens));
  check(!state || state->empty(), owner, ": padding is for the beginning of sequences, and this state is further on; ",
        "give it with the first tokens only");
  padding_ = Padding(padding, time_);
}

Tensor StateUpdate::before(const std::string& name, const Shape& wanted) const {
  return state_ && !state_->empty() ? state_->get(owner_, name, wanted) : Tensor();
}

void StateUpdate::after(const std::string& name, const Tensor& value) {
  if (state_) next_.set(name, value);
}

void StateUpdate::count_steps() {
  if (std::exchange(counts_, true)) return;
  first_key_ = padding_.count();
  if (!state_) return;
  Tensor before;
  if (state_->empty()) {
    before = Tensor::zeros({batch_}, DType::i32, device_);
  } else {
    before = state_->get(owner_, kSteps, {batch_});
    first_key_ = state_->find(kPadding);
    if (in_place_) state_->make_room(time_);
  }
  // Whole numbers up to 2^24 are exact.
  end_key_ = cast(cast(before, DType::f32) + static_cast<double>(time_), DType::i32);
  next_.set(kSteps, end_key_);
  if (first_key_.defined()) next_.set(kPadding, first_key_);
}

Tensor StateUpdate::first_key() {
  count_steps();
  return first_key_;
}

Tensor StateUpdate::end_key() {
  count_steps();
  return in_place_ ? end_key_ : Tensor();
}

Tensor StateUpdate::steps() {
  count_steps();
  return end_key_;
}

int64_t StateUpdate::horizon() {
  count_steps();
  if (!state_) return time_;
  const int64_t now = state_->steps() + time_;
  return std::max({now, state_->reserved_, state_->caches_.empty() ? now : state_->steps() + state_->room()});
}

// The cache with room for what is new, or under a tape a longer one that ends with it.
Tensor StateUpdate::cached(const std::string& name, const Tensor& fresh) {
  const Tensor held = state_->find(name);
  check(state_->empty() == !held.defined(), owner_, ": the state has no '", name, "'; it is another model's");
  check(!held.defined() || (state_->is_cache(name) && held.shape() == fresh.shape().with(1, held.size(1))), owner_,
        ": the state's '", name, "' is ", describe(held), ", and new steps for it are ", describe(fresh));
  Tensor next = held;
  if (!in_place_) {
    next = held.defined() ? concat({slice(held, 1, 0, state_->steps()), fresh}, 1) : fresh;
  } else if (!held.defined()) {
    const int64_t capacity = std::max(time_, state_->reserved_);
    next = Tensor::zeros(fresh.shape().with(1, capacity), fresh.dtype(), fresh.device());
  }
  next_.set(name, next);
  next_.caches_.insert(name);
  return next;
}

StateUpdate::Cached StateUpdate::append(const std::string& name, const Tensor& keys, const Tensor& values) {
  count_steps();
  if (!state_) return {keys, values};
  Cached all{cached(name + ".keys", keys), cached(name + ".values", values)};
  if (in_place_) append_to_cache(keys, values, end_key_, all.keys, all.values);
  return all;
}

void StateUpdate::commit() {
  if (!state_) return;
  for (const NamedTensor& entry : state_->tensors())
    check(next_.find(entry.name).defined(), owner_, ": the state also holds '", entry.name,
          "', which this model does not have; it is another model's");
  next_.reserved_ = state_->reserved_;
  if (counts_) next_.steps_ = state_->steps_ + time_;
  if (!next_.caches_.empty()) {
    next_.written_ = in_place_ && state_->written_ ? state_->written_ : std::make_shared<int64_t>();
    *next_.written_ = next_.steps_;
  }
  *state_ = std::move(next_);
}

}  // namespace monoid

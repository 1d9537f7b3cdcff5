#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "monoid/layers/module.h"
#include "monoid/layers/padding.h"

namespace monoid {

/// What a recurrent layer hands on: its output for every step, and the state after the last one.
struct OutputAndState {
  Tensor output;
  Tensor state;
};

/// What a model remembers between calls: an ordered list of named tensors ("layers.0.hidden", "layers.0.conv_tail"),
/// each with the batch as its first axis. An empty state is a fresh start; a forward fills it. Copying one copies
/// handles, which is a snapshot, because forwards replace the tensors and never write into them.
class State {
 public:
  bool empty() const { return tensors_.empty(); }
  size_t size() const { return tensors_.size(); }
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

  /// The named tensor, or undefined.
  Tensor find(std::string_view name) const;
  /// The named tensor, or an Error that says what this state holds instead; `owner` begins the message.
  Tensor get(std::string_view owner, std::string_view name, const Shape& wanted) const;
  /// Replaces the named tensor, or appends it.
  void set(const std::string& name, const Tensor& value);
  void clear() { tensors_.clear(); }
  /// Cuts the tensors off their tape: how a state crosses from one training window to the next.
  void detach();

  /// A .safetensors file; the order of the tensors is kept in its metadata.
  void save(const std::filesystem::path& path) const;
  static State load(const std::filesystem::path& path, Device device = kCpu);

 private:
  std::vector<NamedTensor> tensors_;
};

/// One forward's use of a state: reads what was there, collects what comes after, and puts it in place only when the
/// forward is through, so that an error leaves the state as it was. Without a state nothing is read or kept.
class StateUpdate {
 public:
  /// Of tokens [batch, time] whose left is padded by `padding` (i32 [batch] on their device, or undefined). A state
  /// that is not fresh takes no padding: that would lie in the middle of its sequences.
  StateUpdate(std::string_view owner, State* state, const Tensor& tokens, const Tensor& padding = {});

  const Padding& padding() const { return padding_; }

  /// The tensor the last call left, which must have the wanted shape; undefined on a fresh start.
  Tensor before(const std::string& name, const Shape& wanted) const;
  void after(const std::string& name, const Tensor& value);
  void commit();

 private:
  std::string owner_;
  State* state_;
  State next_;
  Padding padding_;
};

}  // namespace monoid

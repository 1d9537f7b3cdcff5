#pragma once

#include <filesystem>
#include <memory>
#include <set>
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
/// handles, which is a snapshot, because forwards replace the tensors.
///
/// Caches ("layers.0.keys" [batch, capacity, head, channel]) are the exception: one entry a step, of which the first
/// `steps()` count, and forwards write those of new steps behind them, in place. A snapshot still holds what it held,
/// and the first of two that go on from one point keeps the memory: the other notices and goes on in a copy. What the
/// device needs to know of the place is a tensor too ("steps", and "padding" where there is some, i32 [batch]), so that
/// a captured step of decoding finds the same shapes each time and writes further on. (The last few steps of something,
/// such as a convolution's tail or a window of keys, are no cache: forwards replace them as a whole.)
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
  void clear();
  /// Cuts the tensors off their tape: how a state crosses from one training window to the next.
  void detach();

  bool is_cache(const std::string& name) const { return caches_.contains(name); }
  /// The named tensor, a cache without its room.
  Tensor filled(const std::string& name) const;
  /// Steps read so far, padding included. Only models with caches count them, and those whose steps are not all alike.
  int64_t steps() const { return steps_; }
  /// Caches that forwards make from now on have room for this many steps.
  void reserve(int64_t steps) { reserved_ = steps; }
  /// Steps that still fit into the caches as they are.
  int64_t room() const;
  /// Moves the caches, if need be, so that `steps` more fit and nobody else writes into them. Fuller ones at least
  /// double. Not while a graph is recorded: shapes would change.
  void make_room(int64_t steps);
  /// Counts steps that a replayed graph has read.
  void advance(int64_t steps);

  /// A .safetensors file; the order of the tensors is kept in its metadata, and caches without their room.
  void save(const std::filesystem::path& path) const;
  static State load(const std::filesystem::path& path, Device device = kCpu);

 private:
  friend class StateUpdate;

  std::vector<NamedTensor> tensors_;
  std::set<std::string> caches_;
  int64_t steps_ = 0;
  int64_t reserved_ = 0;
  std::shared_ptr<int64_t> written_;  // steps in the caches' memory, known to all states that share it
};

/// One forward's use of a state: reads what was there, collects what comes after, and puts it in place only when the
/// forward is through, so that an error leaves the state as it was. Without a state nothing is read or kept.
class StateUpdate {
 public:
  /// Of tokens [batch, time] whose left is padded by `padding` (i32 [batch] on their device, or undefined). A state
  /// that is not fresh takes no padding: that would lie in the middle of its sequences.
  StateUpdate(std::string_view owner, State* state, const Tensor& tokens, const Tensor& padding = {});

  const Padding& padding() const { return padding_; }
  /// Whether there is a state to read or keep.
  bool has_state() const { return state_ != nullptr; }

  /// The tensor the last call left, which must have the wanted shape; undefined on a fresh start.
  Tensor before(const std::string& name, const Shape& wanted) const;
  void after(const std::string& name, const Tensor& value);

  struct Cached {
    Tensor keys, values;
  };
  /// A layer's new keys and values [batch, time, head, channel], behind all that its caches `name`.keys and
  /// `name`.values hold. Returns what attention() reads, with `first_key()` and `end_key()`: the caches themselves.
  /// Under a tape nothing is written in place; there they are concatenations, which gradients go through.
  Cached append(const std::string& name, const Tensor& keys, const Tensor& values);
  /// Where each sequence's keys begin, behind its padding, and end, i32 [batch] on the device: for attention() and,
  /// with `offset()`, for rotary(). Undefined: at 0, and with the last there is.
  Tensor first_key();
  Tensor end_key();
  /// Whether there is a state, so that what a layer hands on is looked at.
  bool keeps() const { return state_ != nullptr; }
  /// Steps of each sequence after this call, padding included, i32 [batch] on the device; undefined without a state.
  Tensor steps();
  /// Steps read before this call.
  int64_t offset() const { return state_ ? state_->steps() : 0; }
  /// Steps that fit before a cache has to move: no call, and no captured one replayed, stands further on.
  int64_t horizon();

  void commit();

 private:
  void count_steps();
  Tensor cached(const std::string& name, const Tensor& fresh);

  std::string owner_;
  State* state_;
  State next_;
  Padding padding_;
  int64_t batch_, time_;
  Device device_;
  bool in_place_;
  bool counts_ = false;
  Tensor first_key_, end_key_;
};

}  // namespace monoid

#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "monoid/core/tensor.h"

namespace monoid {

using Tensors = std::vector<Tensor>;

/// Records the ops run on this thread while it lives, and walks them backwards once.
///
///   Tape tape;
///   Tensor loss = model.loss(batch);
///   tape.backward(loss);        // parameter.grad() now holds the gradient
///
/// With no tape alive nothing is recorded, so inference needs no guard. Tapes nest; the innermost one records.
class Tape {
 public:
  /// Gradients of the outputs in, gradients of the inputs out, in the order of `record`. An undefined tensor stands
  /// for zero: an output that nothing used, an input without a gradient.
  using Gradient = std::function<Tensors(const Tensors& output_gradients)>;
  /// The same for an op that adds at no cost: `so_far` holds, for each input, the gradient that its other uses have
  /// given it until now, or nothing. The op moves out what it adds to its own; the tape adds the rest.
  using AddingGradient = std::function<Tensors(const Tensors& output_gradients, Tensors& so_far)>;

  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Adds d(loss)/d(leaf) to grad() of every leaf that requires it. `loss` has one element unless a cotangent of its
  /// shape is given. Frees each node as it goes; a tape is walked once.
  void backward(const Tensor& loss, const Tensor& cotangent = {});
  /// The same from several outputs at once; an undefined cotangent means zero.
  void backward(const Tensors& outputs, const Tensors& cotangents);

  size_t size() const { return nodes_.size(); }
  /// Names of the recorded ops, oldest first.
  std::vector<const char*> ops() const;
  /// Makes every backward throw at the first gradient that is not finite, naming the op. Slow; for finding NaNs.
  void check_finite(bool value) { check_finite_ = value; }

  /// The tape that records on this thread now, or nullptr.
  static Tape* current();
  /// True if a tape is recording and any of the inputs requires a gradient: whether `record` would do anything.
  static bool records(std::initializer_list<Tensor> inputs);

  /// The door for differentiable ops, ours and users': call it after the forward, with a closure that captures only
  /// what the gradient needs. Marks the floating-point outputs as results of this op.
  template <class Function>
  static void record(const char* op, const Tensors& inputs, const Tensors& outputs, Function&& gradient) {
    Tape* const tape = recorder(op, inputs);
    if (!tape) return;
    if constexpr (std::is_invocable_v<Function, const Tensors&, Tensors&>) {
      tape->push(op, inputs, outputs, AddingGradient(std::forward<Function>(gradient)));
    } else {
      tape->push(op, inputs, outputs, Gradient(std::forward<Function>(gradient)));
    }
  }
  /// For an op without a gradient: backward through it throws instead of silently detaching.
  static void record_nondifferentiable(const char* op, const Tensors& inputs, const Tensors& outputs);

 private:
  friend class NoTape;

  struct Node {
    const char* op;
    std::vector<int64_t> inputs;   // slots; -1 where no gradient is wanted
    std::vector<int64_t> outputs;  // slots; -1 for integer outputs
    std::variant<Gradient, AddingGradient> gradient;
  };

  static Tape* recorder(const char* op, const Tensors& inputs);
  void push(const char* op, const Tensors& inputs, const Tensors& outputs,
            std::variant<Gradient, AddingGradient> gradient);
  int64_t slot_of_input(const Tensor& tensor);
  void add_gradient(int64_t slot, const Tensor& gradient);
  Tensors gradients_of(const Node& node, const Tensors& output_gradients);
  void run(Node& node);

  uint64_t id_;
  Tape* enclosing_;
  bool used_ = false;
  bool check_finite_ = false;
  std::vector<Node> nodes_;
  Tensors slots_;  // gradients so far
  std::vector<std::pair<Tensor, int64_t>> leaves_;
  std::unordered_map<const void*, int64_t> leaf_slots_;
};

/// Stops recording on this thread while it lives.
class NoTape {
 public:
  NoTape();
  ~NoTape();
  NoTape(const NoTape&) = delete;
  NoTape& operator=(const NoTape&) = delete;

 private:
  Tape* paused_;
};

/// Runs `block(inputs)` without keeping its activations and runs it again in backward: memory for time. Tensors that
/// need a gradient must come in as inputs or be leaves. The block must compute the same again; random ops in it take
/// their numbers from a Generator copied inside the block.
Tensors checkpoint(const std::function<Tensors(const Tensors&)>& block, const Tensors& inputs);

}  // namespace monoid

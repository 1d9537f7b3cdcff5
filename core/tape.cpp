#include "monoid/core/tape.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "monoid/core/copy.h"

namespace monoid {
namespace {

thread_local Tape* current_tape = nullptr;
std::atomic<uint64_t> next_tape_id{1};

bool all_finite(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_vector<double>();
  return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

}  // namespace

Tape::Tape() : id_(next_tape_id++), enclosing_(std::exchange(current_tape, this)) {}

Tape::~Tape() { current_tape = enclosing_; }

Tape* Tape::current() { return current_tape; }

std::vector<const char*> Tape::ops() const {
  std::vector<const char*> names;
  for (const Node& node : nodes_) names.push_back(node.op);
  return names;
}

bool Tape::records(std::initializer_list<Tensor> inputs) {
  return current_tape && std::any_of(inputs.begin(), inputs.end(), [](const Tensor& x) { return x.requires_grad(); });
}

Tape* Tape::recorder(const char* op, const Tensors& inputs) {
  if (!current_tape) return nullptr;
  bool wanted = false;
  for (const Tensor& input : inputs) {
    if (!input.requires_grad()) continue;
    const uint64_t tape = input.impl().tape;
    check(tape == 0 || tape == current_tape->id_, op, ": input ", describe(input),
          " was recorded on another tape; detach() it to carry its value across tapes");
    wanted = true;
  }
  check(!wanted || !current_tape->used_, op, ": this tape already ran backward; record on a new one");
  return wanted ? current_tape : nullptr;
}

void Tape::record_nondifferentiable(const char* op, const Tensors& inputs, const Tensors& outputs) {
  record(op, inputs, outputs,
         [op](const Tensors&) -> Tensors { fail(op, ": has no gradient; detach() its input if none is wanted"); });
}

int64_t Tape::slot_of_input(const Tensor& tensor) {
  if (!tensor.requires_grad()) return -1;
  if (tensor.impl().tape != 0) return tensor.impl().slot;
  const auto [found, is_new] = leaf_slots_.try_emplace(&tensor.impl(), static_cast<int64_t>(slots_.size()));
  if (is_new) {
    leaves_.emplace_back(tensor, found->second);
    slots_.emplace_back();
  }
  return found->second;
}

void Tape::push(const char* op, const Tensors& inputs, const Tensors& outputs,
                std::variant<Gradient, AddingGradient> gradient) {
  Node node{op, {}, {}, std::move(gradient)};
  for (const Tensor& input : inputs) node.inputs.push_back(slot_of_input(input));
  for (Tensor output : outputs) {
    if (!output.defined() || !is_floating(output.dtype())) {
      node.outputs.push_back(-1);
      continue;
    }
    check(!output.requires_grad(), op, ": output ", describe(output), " is already a leaf or recorded on a tape");
    output.impl().tape = id_;
    output.impl().slot = static_cast<int64_t>(slots_.size());
    node.outputs.push_back(output.impl().slot);
    slots_.emplace_back();
  }
  nodes_.push_back(std::move(node));
}

void Tape::add_gradient(int64_t index, const Tensor& gradient) {
  Tensor& sum = slots_[static_cast<size_t>(index)];
  if (!sum.defined()) {
    sum = gradient;
    return;
  }
  if (!sum.is_contiguous() || !sum.owns_storage_alone()) sum = sum.clone();
  kernels::accumulate(gradient, sum);
}

Tensors Tape::gradients_of(const Node& node, const Tensors& output_gradients) {
  if (const auto* gradient = std::get_if<Gradient>(&node.gradient)) return (*gradient)(output_gradients);
  Tensors so_far;
  for (int64_t slot : node.inputs)
    so_far.push_back(slot < 0 ? Tensor() : std::exchange(slots_[static_cast<size_t>(slot)], {}));
  const Tensors gradients = std::get<AddingGradient>(node.gradient)(output_gradients, so_far);
  for (size_t i = 0; i < so_far.size(); ++i)
    if (so_far[i].defined()) slots_[static_cast<size_t>(node.inputs[i])] = std::exchange(so_far[i], {});
  return gradients;
}

void Tape::run(Node& node) {
  Tensors output_gradients;
  bool reached = false;
  for (int64_t slot : node.outputs) {
    output_gradients.push_back(slot < 0 ? Tensor() : std::exchange(slots_[static_cast<size_t>(slot)], {}));
    reached = reached || output_gradients.back().defined();
  }
  if (!reached) return;
  Tensors gradients = gradients_of(node, output_gradients);
  output_gradients.clear();
  check(gradients.size() == node.inputs.size(), node.op, ": its gradient returned ", gradients.size(), " tensors for ",
        node.inputs.size(), " inputs");
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (node.inputs[i] < 0 || !gradients[i].defined()) continue;
    check(!check_finite_ || all_finite(gradients[i]), node.op, ": its gradient for input ", i,
          " is not finite: ", gradients[i]);
    add_gradient(node.inputs[i], std::exchange(gradients[i], {}));
  }
}

void Tape::backward(const Tensor& loss, const Tensor& cotangent) {
  check(cotangent.defined() || loss.elements() == 1, "backward: the loss is ", describe(loss),
        ", wanted one element (or a cotangent of its shape)");
  backward(Tensors{loss},
           Tensors{cotangent.defined() ? cotangent : Tensor::full(loss.shape(), 1, loss.dtype(), loss.device())});
}

void Tape::backward(const Tensors& outputs, const Tensors& cotangents) {
  check(!used_, "backward: this tape was already walked; record on a new one");
  check(outputs.size() == cotangents.size(), "backward: ", outputs.size(), " outputs but ", cotangents.size(),
        " cotangents");
  NoTape pause;
  used_ = true;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!cotangents[i].defined()) continue;
    check(outputs[i].requires_grad(), "backward: ", describe(outputs[i]),
          " does not depend on any tensor that requires a gradient");
    check(outputs[i].impl().tape == 0 || outputs[i].impl().tape == id_, "backward: ", describe(outputs[i]),
          " was recorded on another tape");
    check_shape("backward", "cotangent", cotangents[i], outputs[i].shape());
    add_gradient(slot_of_input(outputs[i]), cotangents[i]);
  }
  while (!nodes_.empty()) {
    run(nodes_.back());
    nodes_.pop_back();
  }
  for (auto& [leaf, slot] : leaves_) {
    Tensor gradient = std::exchange(slots_[static_cast<size_t>(slot)], {});
    if (gradient.defined()) leaf.accumulate_grad(std::move(gradient));
  }
  slots_.clear();
  leaves_.clear();
  leaf_slots_.clear();
}

NoTape::NoTape() : paused_(std::exchange(current_tape, nullptr)) {}
NoTape::~NoTape() { current_tape = paused_; }

namespace {

// The inputs of a block that has a tape of its own.
Tensors as_leaves(const Tensors& inputs) {
  Tensors leaves;
  for (const Tensor& input : inputs) {
    leaves.push_back(input.detach());
    if (input.requires_grad()) leaves.back().set_requires_grad();
  }
  return leaves;
}

}  // namespace

Tensors checkpoint(const std::function<Tensors(const Tensors&)>& block, const Tensors& inputs) {
  if (!Tape::current()) return block(inputs);
  Tensors outputs;
  {
    Tape discarded;  // ops that nobody records may use other kernels, of other bits than those in backward
    for (const Tensor& output : block(as_leaves(inputs))) outputs.push_back(output.detach());
  }
  // Parameters are leaves the block captured, not inputs: without an input that requires a gradient the node would
  // not be reached, so a marker leaf keeps it on the tape.
  Tensors recorded = inputs;
  recorded.push_back(Tensor::zeros({}).set_requires_grad());
  Tape::record("checkpoint", recorded, outputs, [block, inputs](const Tensors& output_gradients) {
    const Tensors leaves = as_leaves(inputs);
    Tape inner;
    const Tensors again = block(leaves);
    Tensors reached, cotangents;
    for (size_t i = 0; i < again.size(); ++i) {
      if (!output_gradients[i].defined() || !again[i].requires_grad()) continue;
      reached.push_back(again[i]);
      cotangents.push_back(output_gradients[i]);
    }
    inner.backward(reached, cotangents);
    Tensors gradients;
    for (const Tensor& leaf : leaves) gradients.push_back(leaf.requires_grad() ? leaf.grad() : Tensor());
    gradients.emplace_back();
    return gradients;
  });
  return outputs;
}

}  // namespace monoid

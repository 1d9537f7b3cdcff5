// An op as two cases, forward and forward + backward, on either kind of device.

#include <algorithm>
#include <cmath>
#include <memory>

#include "monoid/core/random.h"
#include "monoid/core/runtime.h"
#include "monoid/core/stream.h"
#include "monoid/ops/elementwise.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

constexpr double kBeyondCache = 150e6;  // bytes that inputs of one round take, on a GPU
constexpr int64_t kMostCopies = 16;
constexpr int64_t kMostVerified = int64_t{1} << 24;  // elements of an input: more takes too long on the CPU

// Inputs with gradients wanted, and what they give.
struct Call {
  Tensors leaves, cotangents;

  Call(const Tensors& inputs, const Tensor& cotangent) : cotangents{cotangent} {
    for (const Tensor& input : inputs) {
      leaves.push_back(input.detach());
      if (is_floating(input.dtype())) leaves.back().set_requires_grad();
    }
  }

  Tensors forward_backward(const Op& op) const {
    for (Tensor leaf : leaves) leaf.clear_grad();
    Tape tape;
    Tensors outputs = op(leaves);
    outputs.resize(1);
    tape.backward(outputs, cotangents);
    return outputs;
  }
};

Tensors converted(const Tensors& tensors, Device device, DType dtype) {
  Tensors result;
  for (const Tensor& tensor : tensors)
    result.push_back((is_floating(tensor.dtype()) ? tensor.to(dtype) : tensor).to(device));
  return result;
}

double largest(const Tensor& x) {
  double most = 0;
  for (double value : x.to_vector<double>()) most = std::isnan(value) ? value : std::max(most, std::abs(value));
  return most;
}

double error_of(const Tensor& found, const Tensor& expected) {
  const Tensor difference = found.detach().to(kCpu).to(DType::f64) - expected.detach();
  return largest(difference) / std::max(largest(expected.detach()), 1e-30);
}

// The largest error of the output and of each gradient.
double verify(const Op& op, const Call& call, const Tensor& output) {
  const Call reference(converted(converted(call.leaves, kCpu, call.cotangents[0].dtype()), kCpu, DType::f64),
                       call.cotangents[0].to(kCpu).to(DType::f64));
  double worst = error_of(output, reference.forward_backward(op)[0]);
  for (size_t i = 0; i < call.leaves.size(); ++i) {
    if (call.leaves[i].requires_grad())
      worst = std::max(worst, error_of(call.leaves[i].grad(), reference.leaves[i].grad()));
  }
  return worst;
}

std::vector<Case> on_gpu(const Target& target, const std::string& name, const std::string& shape, const Tensors& inputs,
                         const Op& op, const Floor& floor) {
  Generator generator(7);
  double bytes = 0;
  int64_t elements = 0;
  for (const Tensor& input : inputs) {
    bytes += static_cast<double>(input.elements()) * static_cast<double>(size_of(target.dtype));
    elements = std::max(elements, input.elements());
  }
  const auto copies = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(kBeyondCache / bytes)), 1, kMostCopies);
  auto calls = std::make_shared<std::vector<Call>>();
  const Tensors there = converted(inputs, target.device, target.dtype);
  const Tensor like = op(there)[0];
  // That of a loss is 1, as in training.
  const Tensor numbers = like.rank() == 0 ? Tensor::ones({}) : random_normal(like.shape(), generator);
  const Tensor cotangent = numbers.to(like.dtype()).to(target.device);
  for (int64_t i = 0; i < copies; ++i) {
    Tensors own;
    for (const Tensor& tensor : there) own.push_back(tensor.clone());
    calls->emplace_back(own, cotangent.clone());
  }
  Case forward{name + "/forward", shape, floor.forward_bytes, floor.forward_flops, floor.items};
  Case both{name + "/forward+backward", shape, floor.total_bytes, 3 * floor.forward_flops, floor.items};
  const Tensor output = calls->front().forward_backward(op)[0];
  if (target.verify && elements <= kMostVerified) both.error = forward.error = verify(op, calls->front(), output);
  const auto all_forward = [=] {
    for (const Call& call : *calls) {
      Tensors plain;
      for (const Tensor& leaf : call.leaves) plain.push_back(leaf.detach());
      op(plain);
    }
  };
  const auto all_both = [=] {
    for (const Call& call : *calls) call.forward_backward(op);
  };
  forward.timed = timed_on_device(target.device, all_forward, static_cast<double>(copies));
  both.timed = timed_on_device(target.device, all_both, static_cast<double>(copies));
  return {forward, both};
}

}  // namespace

std::function<double()> timed_on_device(Device device, const std::function<void()>& run, double calls) {
  run();
  auto graph = std::make_shared<Graph>(device, run);
  auto start = std::make_shared<Event>(device), end = std::make_shared<Event>(device);
  return [=] {
    start->record();
    graph->replay();
    end->record();
    return end->milliseconds_since(*start) * 1e-3 / calls;
  };
}

std::vector<Case> both_directions(const Target& target, const std::string& name, const std::string& shape,
                                  const Tensors& inputs, const Op& op, const Floor& floor) {
  if (target.device.is_cuda()) return on_gpu(target, name, shape, inputs, op, floor);
  Generator generator(7);
  const Tensors here = converted(inputs, target.device, target.dtype);
  const auto call = std::make_shared<Call>(here, random_normal(op(here)[0].shape(), generator).to(target.dtype));
  return {{name + "/forward", shape, floor.forward_bytes, floor.forward_flops, floor.items, [=] { op(here); }},
          {name + "/forward+backward", shape, floor.total_bytes, 3 * floor.forward_flops, floor.items,
           [=] { call->forward_backward(op); }}};
}

}  // namespace monoid::bench

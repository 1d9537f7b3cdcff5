#pragma once

#include <functional>
#include <string>
#include <vector>

#include "monoid/ops/registry.h"
#include "monoid/tests/support/catch.h"

namespace monoid::test {

inline constexpr uint64_t kSeed = 20;

/// What a sample of the op registry computes.
struct Results {
  Tensors outputs;
  Tensors gradients;  // one an input, undefined where there is none
  std::vector<std::string> recorded;
};

/// Cotangents of outputs, undefined where none is wanted.
using Cotangents = std::function<Tensors(const Tensors& outputs)>;

/// The same random numbers for the same shapes on every device, rounded to `exact` first.
inline Tensors random_cotangents(const Tensors& outputs, DType exact = DType::f64) {
  Generator generator(kSeed);
  Tensors cotangents;
  for (const Tensor& output : outputs) {
    const bool wanted = output.defined() && output.requires_grad();
    cotangents.push_back(wanted ? random_normal(output.shape(), generator, 0, 1, DType::f64)
                                      .to(exact)
                                      .to(output.dtype())
                                      .to(output.device())
                                : Tensor());
  }
  return cotangents;
}

/// Runs a sample and, if it recorded anything, its gradient.
inline Results run(
    const OpSample& sample,
    const Cotangents& cotangents = [](const Tensors& outputs) { return random_cotangents(outputs); }) {
  Tensors inputs;
  for (const Tensor& input : sample.inputs) {
    inputs.push_back(input.defined() ? input.clone() : input);
    if (input.defined() && is_floating(input.dtype())) inputs.back().set_requires_grad();
  }
  Results results;
  Tape tape;
  results.outputs = sample.run(inputs);
  for (const char* op : tape.ops()) results.recorded.emplace_back(op);
  bool reached = false;
  for (const Tensor& output : results.outputs) reached = reached || (output.defined() && output.requires_grad());
  if (reached) tape.backward(results.outputs, cotangents(results.outputs));
  for (const Tensor& input : inputs) {
    results.gradients.push_back(input.defined() && input.requires_grad() ? input.grad() : Tensor());
  }
  return results;
}

template <class Check>
void for_each_pair(const Tensors& a, const Tensors& b, Check check_pair) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    REQUIRE(a[i].defined() == b[i].defined());
    if (a[i].defined()) check_pair(a[i], b[i]);
  }
}

}  // namespace monoid::test

#include "monoid/tests/support/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "monoid/tests/support/catch.h"

namespace monoid::test {
namespace {

double contract(const Tensors& outputs, const Tensors& cotangents) {
  double total = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!cotangents[i].defined()) continue;
    const auto values = outputs[i].to_vector<double>(), weights = cotangents[i].to_vector<double>();
    for (size_t j = 0; j < values.size(); ++j) total += values[j] * weights[j];
  }
  return total;
}

}  // namespace

void check_gradients(const std::string& op, const OpSample& sample, double eps, double tolerance) {
  Tensors inputs;
  for (const Tensor& input : sample.inputs) {
    inputs.push_back(input.defined() ? input.clone() : input);
    if (input.defined() && is_floating(input.dtype())) inputs.back().set_requires_grad();
  }
  Generator generator(1234);
  Tensors cotangents;
  {
    Tape tape;
    const Tensors outputs = sample.run(inputs);
    Tensors reached;
    for (const Tensor& output : outputs) {
      const bool wanted = output.defined() && output.requires_grad();
      cotangents.push_back(wanted ? random_normal(output.shape(), generator, 0, 1, DType::f64) : Tensor());
    }
    tape.backward(outputs, cotangents);
  }
  NoTape pause;
  for (size_t n = 0; n < inputs.size(); ++n) {
    if (!inputs[n].requires_grad()) continue;
    CAPTURE(op, sample.label, n);
    const Tensor gradient = inputs[n].grad();
    const std::vector<double> tape = gradient.defined()
                                         ? gradient.to_vector<double>()
                                         : std::vector<double>(static_cast<size_t>(inputs[n].elements()));
    double* values = inputs[n].data<double>();
    for (int64_t i = 0; i < inputs[n].elements(); ++i) {
      const double original = values[i];
      values[i] = original + eps;
      const double above = contract(sample.run(inputs), cotangents);
      values[i] = original - eps;
      const double below = contract(sample.run(inputs), cotangents);
      values[i] = original;
      const double numeric = (above - below) / (2 * eps);
      const double difference = std::abs(numeric - tape[static_cast<size_t>(i)]);
      if (!(difference <= tolerance * std::max(1.0, std::abs(numeric)))) {
        CAPTURE(i, numeric, tape[static_cast<size_t>(i)]);
        CHECK(difference <= tolerance * std::max(1.0, std::abs(numeric)));
      }
    }
    SUCCEED();
  }
}

}  // namespace monoid::test

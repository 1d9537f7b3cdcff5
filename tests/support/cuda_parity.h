#pragma once

#include <functional>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/tests/support/cuda.h"

namespace monoid::test {

using DeviceOp = std::function<Tensors(const Tensors& inputs)>;

/// What an op gives for leaves of these values: its outputs, then the gradient of every floating-point input, for
/// cotangents that depend on the shapes alone. They are made in f32 and rounded to the dtype of the output.
inline Tensors outputs_and_gradients(const DeviceOp& op, const Tensors& values, DType cotangent_dtype = DType::f32) {
  Tensors leaves;
  for (const Tensor& value : values) {
    leaves.push_back(value.defined() ? value.detach() : value);
    if (value.defined() && is_floating(value.dtype())) leaves.back().set_requires_grad();
  }
  Tape tape;
  const Tensors outputs = op(leaves);
  Generator generator(77);
  Tensors results, cotangents;
  for (const Tensor& output : outputs) {
    const Tensor cotangent = random_normal(output.shape(), generator, 0, 1, DType::f32).to(cotangent_dtype);
    cotangents.push_back(cotangent.to(output.dtype()).to(output.device()));
    results.push_back(output.detach());
  }
  tape.backward(outputs, cotangents);
  for (const Tensor& leaf : leaves) {
    if (leaf.defined() && leaf.requires_grad()) results.push_back(leaf.grad());
  }
  return results;
}

inline Tensors on_cuda(const Tensors& values, DType dtype) {
  Tensors result;
  for (const Tensor& value : values) {
    const bool converts = value.defined() && is_floating(value.dtype());
    result.push_back(!value.defined() ? value : (converts ? value.to(dtype) : value).to(kCuda));
  }
  return result;
}

/// Runs an op in `dtype` on CUDA and in f64 on the CPU, from the same rounded values: outputs and gradients must agree
/// to `tolerance` of the greatest element each.
inline void check_parity(const DeviceOp& op, const Tensors& values, DType dtype, double tolerance) {
  Tensors exact;
  for (const Tensor& value : values) {
    const bool converts = value.defined() && is_floating(value.dtype());
    exact.push_back(converts ? value.to(dtype).to(DType::f64) : value);
  }
  const Tensors expected = outputs_and_gradients(op, exact, dtype);
  const Tensors actual = outputs_and_gradients(op, on_cuda(values, dtype), dtype);
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    CAPTURE(i);
    REQUIRE(actual[i].defined() == expected[i].defined());
    if (actual[i].defined()) check_close_in_norm(actual[i].to(kCpu).to(DType::f64), expected[i], tolerance);
  }
}

inline Tensor normal(const Shape& shape, uint64_t seed, double deviation = 1, double mean = 0) {
  Generator generator(seed);
  return random_normal(shape, generator, mean, deviation, DType::f64);
}

}  // namespace monoid::test

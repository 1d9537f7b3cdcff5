#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/kernels/scan.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/cuda.h"

// CUDA scans against the CPU's in f64 on the same values. A gradient is compared for the same states.

namespace monoid::test {

inline constexpr double kInf = std::numeric_limits<double>::infinity();

enum class Kind { linear, log, min_gru, min_lstm };
inline constexpr Kind kKinds[] = {Kind::linear, Kind::log, Kind::min_gru, Kind::min_lstm};

inline bool is_gated(Kind kind) { return kind == Kind::min_gru || kind == Kind::min_lstm; }

/// The operands of a scan: a and b, or one packed projection.
struct Operands {
  Tensors in;
  Tensor initial, cotangent, final_cotangent;

  Operands each(const auto& change) const {
    const auto apply = [&](const Tensor& x) { return x.defined() ? change(x) : x; };
    Operands result{{}, apply(initial), apply(cotangent), apply(final_cotangent)};
    for (const Tensor& x : in) result.in.push_back(apply(x));
    return result;
  }
  Operands on(Device device) const {
    return each([&](const Tensor& x) { return x.to(device); });
  }
  Operands as(DType dtype) const {
    return each([&](const Tensor& x) { return x.to(dtype); });
  }
};

inline Tensor with_nothing(Tensor x, Generator& generator) {
  for (int64_t i = 0; i < x.elements(); ++i)
    if (generator.below(5) == 0) x.data<float>()[i] = -INFINITY;
  return x;
}

inline Operands draw(Kind kind, const Shape& shape, Generator& generator, bool with_state = true) {
  const Shape state{shape[0], shape[2]};
  Operands result;
  if (is_gated(kind)) {
    const int64_t parts = kind == Kind::min_gru ? 2 : 3;
    result.in = {random_normal(shape.with(2, parts * shape[2]), generator, 0, 2)};
    result.initial = random_uniform(state, generator, 0, 3);
  } else if (kind == Kind::linear) {
    result.in = {random_uniform(shape, generator, -1, 1), random_normal(shape, generator)};
    result.initial = random_normal(state, generator);
  } else {
    result.in = {with_nothing(random_normal(shape, generator, -1, 2), generator),
                 with_nothing(random_normal(shape, generator, 0, 2), generator)};
    result.initial = with_nothing(random_normal(state, generator), generator);
  }
  if (!with_state) result.initial = {};
  result.cotangent = random_normal(shape, generator);
  result.final_cotangent = random_normal(state, generator);
  return result;
}

inline Shape states_shape(Kind kind, const Operands& x) {
  const Shape& shape = x.in[0].shape();
  return is_gated(kind) ? shape.with(2, shape[2] / (kind == Kind::min_gru ? 2 : 3)) : shape;
}

/// What a kernel writes; on a GPU, each in the middle of a guarded buffer.
struct Outputs {
  std::vector<Guarded> guarded;
  Tensors tensors;

  explicit Outputs(std::vector<Shape> shapes, DType dtype, Device device, int64_t skipped) {
    guarded.reserve(shapes.size());
    for (const Shape& shape : shapes) {
      if (device.is_cuda()) guarded.emplace_back(shape, dtype, skipped);
      tensors.push_back(device.is_cuda() ? guarded.back().tensor() : Tensor::empty(shape, dtype));
    }
  }
  void check_intact() const {
    for (const Guarded& output : guarded) output.check_intact();
  }
};

/// States and final state.
inline Tensors forward(Kind kind, const Operands& x, Direction direction = Direction::forward, int64_t skipped = 0) {
  const Shape shape = states_shape(kind, x);
  Outputs out({shape, {shape[0], shape[2]}}, x.in[0].dtype(), x.in[0].device(), skipped);
  Tensor &states = out.tensors[0], &final = out.tensors[1];
  switch (kind) {
    case Kind::linear:
      kernels::linear_scan(x.in[0], x.in[1], x.initial, states, final, direction);
      break;
    case Kind::log:
      kernels::log_scan(x.in[0], x.in[1], x.initial, states, final, direction);
      break;
    case Kind::min_gru:
      kernels::min_gru_scan(x.in[0], x.initial, states, final);
      break;
    case Kind::min_lstm:
      kernels::min_lstm_scan(x.in[0], x.initial, states, final);
      break;
  }
  out.check_intact();
  return out.tensors;
}

/// The gradients of the inputs and, where there is one, of the initial state.
inline Tensors backward(Kind kind, const Operands& x, const Tensor& states, Direction direction = Direction::forward,
                        int64_t skipped = 0) {
  std::vector<Shape> shapes;
  for (const Tensor& in : x.in) shapes.push_back(in.shape());
  if (x.initial.defined()) shapes.push_back(x.initial.shape());
  Outputs out(shapes, x.in[0].dtype(), x.in[0].device(), skipped);
  Tensors& to = out.tensors;
  Tensor none;
  Tensor& initial_gradient = x.initial.defined() ? to.back() : none;
  switch (kind) {
    case Kind::linear:
      kernels::linear_scan_gradient(x.in[0], x.initial, states, x.cotangent, x.final_cotangent, to[0], to[1],
                                    initial_gradient, direction);
      break;
    case Kind::log:
      kernels::log_scan_gradient(x.in[0], x.in[1], x.initial, states, x.cotangent, x.final_cotangent, to[0], to[1],
                                 initial_gradient, direction);
      break;
    case Kind::min_gru:
      kernels::min_gru_scan_gradient(x.in[0], x.initial, states, x.cotangent, x.final_cotangent, to[0],
                                     initial_gradient);
      break;
    case Kind::min_lstm:
      kernels::min_lstm_scan_gradient(x.in[0], x.initial, states, x.cotangent, x.final_cotangent, to[0],
                                      initial_gradient);
      break;
  }
  out.check_intact();
  return out.tensors;
}

inline Tensor on_cpu(const Tensor& x) { return x.to(kCpu).to(DType::f32); }

/// |actual - expected| within so much of the largest, and of the element itself where storage rounds.
inline void check_near(const Tensor& actual, const Tensor& expected, double tolerance) {
  double largest = 0;
  for (const double value : expected.to_vector<double>())
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  const double rounding = actual.dtype() == DType::bf16 ? 0x1p-8 : 0;
  check_close(on_cpu(actual), expected.to(DType::f32), rounding + tolerance, tolerance * largest);
}

/// Runs a scan and its gradient on the GPU, holds both against the CPU.
inline void check_scan(Kind kind, const Operands& operands, Direction direction, DType dtype, int64_t skipped = 0,
                       double tolerance = 1e-5) {
  const Operands stored = operands.as(dtype), exact = stored.as(DType::f64), here = stored.on(kCuda);
  const Tensors result = forward(kind, here, direction, skipped), expected = forward(kind, exact, direction);
  for (size_t i = 0; i < 2; ++i) check_near(result[i], expected[i], tolerance);
  const Tensors gradients = backward(kind, here, result[0], direction, skipped);
  const Tensors wanted = backward(kind, exact, result[0].to(kCpu).to(DType::f64), direction);
  for (size_t i = 0; i < wanted.size(); ++i) {
    CAPTURE(i);
    check_near(gradients[i], wanted[i], tolerance);
  }
}

inline std::string name_of(Kind kind) {
  return kind == Kind::linear ? "linear" : kind == Kind::log ? "log" : kind == Kind::min_gru ? "min_gru" : "min_lstm";
}

}  // namespace monoid::test

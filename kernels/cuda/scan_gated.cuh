#pragma once

#include "monoid/kernels/cuda/device/gates.cuh"
#include "monoid/kernels/cuda/scan_run.cuh"
#include "monoid/kernels/monoid.h"

// h_t = h_{t-1} + z_t (g(x_t) - h_{t-1}) from a packed projection, and its adjoint; kernels/cpu/scan_gated.cpp has the
// mathematics. A cell says how many parts a packed row has (hidden first), and
//
//   GatedInput input(parts)                 the gate and g(hidden)
//   void spread(logit, parts, gradients)    the gradient of z's logit back to the parts after hidden, each a factor of
//   it

namespace monoid::cuda {

struct GatedInput {
  SignedGate gate;
  float value;

  __device__ float advance(float h) const { return gate.blend(h, value); }
  __device__ const GatedInput& link() const { return *this; }
};

template <class Cell>
struct GatedForward {
  using State = float;
  using Summary = GatedRun<float>;
  using Element = GatedInput;
  static constexpr int kInputs = Cell::kParts, kOutputs = 1, kClosing = -1;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = true;

  __device__ static Element element(const float (&in)[kInputs]) { return Cell::input(in); }
  __device__ static float advance(const Element& e, float h, float (&out)[1]) { return out[0] = e.advance(h); }
};

// carry_t = (1 - z_t) (dh_t + carry_{t+1}); the logit's gradient is delta (g - h_{t-1}) z (1 - z). Everything but delta
// is known before the state is: an element holds the factors.
template <class Cell>
struct GatedBackward {
  using State = float;
  using Summary = GatedRun<float>;
  static constexpr int kParts = Cell::kParts;
  static constexpr int kInputs = kParts + 2, kOutputs = kParts, kClosing = kParts;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false;
  struct Element {
    SignedGate gate;
    float cotangent, slope;
    float factors[kParts - 1];
    __device__ float advance(float carry) const { return gate.keep(cotangent + carry); }
    __device__ const Element& link() const { return *this; }
  };

  __device__ static Element element(const float (&in)[kInputs]) {
    float parts[kParts];
#pragma unroll
    for (int i = 0; i < kParts; ++i) parts[i] = in[i];
    const auto [gate, value] = Cell::input(parts);
    const float previous = in[kParts], minor = gate.magnitude();
    Element e{gate, in[kParts + 1], parts[0] >= 0 ? 1 : value * (1 - value), {}};
    Cell::spread((value - previous) * (minor * (1 - minor)), parts, e.factors);
    return e;
  }
  __device__ static float advance(const Element& e, float carry, float (&out)[kParts]) {
    const float delta = e.cotangent + carry;
    out[0] = e.gate.take(delta) * e.slope;
#pragma unroll
    for (int i = 1; i < kParts; ++i) out[i] = delta * e.factors[i - 1];
    return e.gate.keep(delta);
  }
};

/// The rows of each part of a packed tensor, into the first places of `rows`.
template <class T, class Of, int kCount>
void part_rows(Of& packed, Direction direction, int parts, Rows<T> (&rows)[kCount]) {
  const int64_t channels = packed.size(2) / parts;
  for (int i = 0; i < parts; ++i) rows[i] = rows_of<T>(packed, direction, 0, i * channels);
}

template <class Cell>
void gated_scan(const char* op, const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final) {
  dispatch_storage(op, packed.dtype(), [&]<class T>() {
    Scan<GatedForward<Cell>, T> scan{.out = {rows_of<T>(states, Direction::forward)}};
    part_rows<const T>(packed, Direction::forward, Cell::kParts, scan.in);
    run_scan(op, scan, states, initial, final);
  });
}

template <class Cell>
void gated_scan_gradient(const char* op, const Tensor& packed, const Tensor& initial, const Tensor& states,
                         const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                         Tensor& initial_gradient) {
  dispatch_storage(op, packed.dtype(), [&]<class T>() {
    Scan<GatedBackward<Cell>, T> scan{.closing = rows_of<const T>(initial)};
    part_rows<const T>(packed, Direction::reverse, Cell::kParts, scan.in);
    part_rows<T>(packed_gradient, Direction::reverse, Cell::kParts, scan.out);
    scan.in[Cell::kParts] = rows_of<const T>(states, Direction::reverse, 1);
    scan.in[Cell::kParts + 1] = rows_of<const T>(states_cotangent, Direction::reverse);
    run_scan(op, scan, states, final_cotangent, initial_gradient);
  });
}

}  // namespace monoid::cuda

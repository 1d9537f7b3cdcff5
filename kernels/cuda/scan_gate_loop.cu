// GateLoop with a channel a head on CUDA, and its real relative; kernels/cpu/gate_loop.cpp has the mathematics. A step
// of the adjoint knows all but delta before the state arrives: the gradient of z is a matrix times delta. Floor
// (elements moved per channel and step): GateLoop 6 forward, 11 backward; simple 4 and 7. A kept state of one step in
// four adds 2 or 1 f32 to both, per four.

#include "monoid/kernels/cuda/device/gates.cuh"
#include "monoid/kernels/cuda/device/polar.cuh"
#include "monoid/kernels/cuda/scan_pairs.cuh"
#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/monoid.h"
#include "monoid/kernels/polar_gate.h"

namespace monoid::cuda {
namespace {

struct GateLoopStep {
  using State = Complex<float>;
  using Summary = Affine<State>;
  using Options = TransitionRule<float>;
  static constexpr int kInputs = 5, kOutputs = 1, kClosing = -1;
  static constexpr unsigned kPairedInputs = 0b01000, kPairedOutputs = 0;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false, kKeeps = true;
  struct Element {
    State a;
    float query, input;
    __device__ Summary link() const { return {a, State(input)}; }
  };

  __device__ static Element element(const float (&in)[5], const Options& rule) {
    return {rule.gate<PolarMath>(in[3], in[4]).value(), in[0], in[1] * in[2]};
  }
  __device__ static State follow(const Element& e, State h) {
    return State(fmaf(e.a.re, h.re, fmaf(-e.a.im, h.im, e.input)), fmaf(e.a.re, h.im, e.a.im * h.re));
  }
  __device__ static State advance(const Element& e, State h, float (&out)[1]) {
    const State after = follow(e, h);
    out[0] = e.query * after.re;
    return after;
  }
};

struct GateLoopAdjoint {
  using State = Complex<float>;
  using Summary = Affine<State>;
  using Options = TransitionRule<float>;
  static constexpr int kInputs = 6, kOutputs = 5, kClosing = -1;
  static constexpr unsigned kPairedInputs = 0b001000, kPairedOutputs = 0b01000;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false, kRecalls = true;
  struct Element {
    State back;       // conj(a)
    float cotangent;  // of Re(h)
    float query_gradient, key, value;
    State from_re, from_im;  // the gradient of z for a delta of 1 and of i
    __device__ Summary link() const { return {back, State(back.re * cotangent, back.im * cotangent)}; }
  };

  __device__ static Element element(const float (&in)[6], const Options& rule, State before, State& after) {
    const auto& [query, key, value, re, im, dy] = in;
    const PolarGate<float> gate = rule.gate<PolarMath>(re, im);
    const State a = gate.value(), from = conjugate(before);
    after = State(fmaf(a.re, before.re, fmaf(-a.im, before.im, key * value)), fmaf(a.re, before.im, a.im * before.re));
    return {conjugate(a),
            query * dy,
            dy * after.re,
            key,
            value,
            gate.pull_back(from),
            gate.pull_back(State(-from.im, from.re))};
  }
  __device__ static State delta_of(const Element& e, State carry) { return State(carry.re + e.cotangent, carry.im); }
  __device__ static State follow(const Element& e, State carry) {
    const State delta = delta_of(e, carry);
    return State(fmaf(e.back.re, delta.re, -e.back.im * delta.im), fmaf(e.back.re, delta.im, e.back.im * delta.re));
  }
  __device__ static State advance(const Element& e, State carry, float (&out)[5]) {
    const State delta = delta_of(e, carry);
    out[0] = e.query_gradient;
    out[1] = delta.re * e.value;
    out[2] = delta.re * e.key;
    out[3] = fmaf(e.from_re.re, delta.re, e.from_im.re * delta.im);
    out[4] = fmaf(e.from_re.im, delta.re, e.from_im.im * delta.im);
    return follow(e, carry);
  }
};

struct SigmoidGate {
  float decay, slope;

  __device__ static SigmoidGate of(float logit) {
    const float e = exp_of_minus(fabsf(logit)), larger = reciprocal_approximate(1 + e), smaller = e * larger;
    return {logit > 0 ? larger : smaller, larger * smaller};
  }
};

struct SimpleStep {
  using State = float;
  using Summary = Affine<float>;
  static constexpr int kInputs = 3, kOutputs = 1, kClosing = -1;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false, kKeeps = true;
  struct Element {
    Affine<float> step;
    float query;
    __device__ Summary link() const { return step; }
  };

  __device__ static Element element(const float (&in)[3]) { return {{SigmoidGate::of(in[2]).decay, in[1]}, in[0]}; }
  __device__ static float follow(const Element& e, float h) { return e.step.advance(h); }
  __device__ static float advance(const Element& e, float h, float (&out)[1]) {
    const float after = follow(e, h);
    out[0] = e.query * after;
    return after;
  }
};

struct SimpleAdjoint {
  using State = float;
  using Summary = Affine<float>;
  static constexpr int kInputs = 4, kOutputs = 3, kClosing = -1;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false, kRecalls = true;
  struct Element {
    float decay, cotangent, query_gradient, logit_factor;
    __device__ Summary link() const { return {decay, decay * cotangent}; }
  };

  __device__ static Element element(const float (&in)[4], NoOptions, float before, float& after) {
    const auto& [query, input, logit, dy] = in;
    const SigmoidGate gate = SigmoidGate::of(logit);
    after = fmaf(gate.decay, before, input);
    return {gate.decay, query * dy, dy * after, before * gate.slope};
  }
  __device__ static float follow(const Element& e, float carry) { return e.decay * (e.cotangent + carry); }
  __device__ static float advance(const Element& e, float carry, float (&out)[3]) {
    const float delta = e.cotangent + carry;
    out[0] = e.query_gradient;
    out[1] = delta;
    out[2] = delta * e.logit_factor;
    return follow(e, carry);
  }
};

/// The three parts of a packed tensor, into the first places of `rows`.
template <class T, class Of, int kCount>
void part_rows(Of& packed, Direction direction, Rows<T> (&rows)[kCount]) {
  for (int i = 0; i < 3; ++i) rows[i] = rows_of<T>(packed, direction, 0, i * (packed.size(2) / 3));
}

}  // namespace

void gate_loop_scan(const Tensor& qkv, const Tensor& z, const Tensor& initial, Tensor& y, Tensor& final, Tensor& kept,
                    const GateLoopOptions& options) {
  const Tensor gates = on_pair_grid(z), entering = on_pair_grid(initial);
  dispatch_storage("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    Scan<GateLoopStep, T> scan{.kept = kept_rows_of(kept), .options = TransitionRule<float>(options)};
    part_rows<const T>(qkv, Direction::forward, scan.in);
    scan.in[3] = rows_of<const T>(gates, Direction::forward);
    scan.out[0] = rows_of<T>(y, Direction::forward);
    run_scan("gate_loop_scan", scan, y, entering, final);
  });
}

void gate_loop_scan_gradient(const Tensor& qkv, const Tensor& z, const Tensor& kept, const Tensor& y_cotangent,
                             const Tensor& final_cotangent, Tensor& qkv_gradient, Tensor& z_gradient,
                             Tensor& initial_gradient, const GateLoopOptions& options) {
  const Tensor gates = on_pair_grid(z), leaving = on_pair_grid(final_cotangent);
  const ScanExtents extents{z.size(0), z.size(1), z.size(2)};
  dispatch_storage("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    Scan<GateLoopAdjoint, T> scan{.kept = kept_rows_of(kept), .options = TransitionRule<float>(options)};
    part_rows<const T>(qkv, Direction::reverse, scan.in);
    part_rows<T>(qkv_gradient, Direction::reverse, scan.out);
    scan.in[3] = rows_of<const T>(gates, Direction::reverse);
    scan.in[5] = rows_of<const T>(y_cotangent, Direction::reverse);
    scan.out[3] = rows_of<T>(z_gradient, Direction::reverse);
    run_scan("gate_loop_scan", scan, extents, qkv.device().index, leaving, initial_gradient);
  });
}

void simple_gate_loop_scan(const Tensor& packed, const Tensor& initial, Tensor& y, Tensor& final, Tensor& kept,
                           Direction direction) {
  dispatch_storage("simple_gate_loop_scan", packed.dtype(), [&]<class T>() {
    Scan<SimpleStep, T> scan{.kept = kept_rows_of(kept)};
    part_rows<const T>(packed, direction, scan.in);
    scan.out[0] = rows_of<T>(y, direction);
    run_scan("simple_gate_loop_scan", scan, y, initial, final);
  });
}

void simple_gate_loop_scan_gradient(const Tensor& packed, const Tensor& kept, const Tensor& y_cotangent,
                                    const Tensor& final_cotangent, Tensor& packed_gradient, Tensor& initial_gradient,
                                    Direction direction) {
  const Direction back = opposite(direction);
  const ScanExtents extents{packed.size(0), packed.size(1), packed.size(2) / 3};
  dispatch_storage("simple_gate_loop_scan", packed.dtype(), [&]<class T>() {
    Scan<SimpleAdjoint, T> scan{.kept = kept_rows_of(kept)};
    part_rows<const T>(packed, back, scan.in);
    part_rows<T>(packed_gradient, back, scan.out);
    scan.in[3] = rows_of<const T>(y_cotangent, back);
    run_scan("simple_gate_loop_scan", scan, extents, packed.device().index, final_cotangent, initial_gradient);
  });
}

}  // namespace monoid::cuda

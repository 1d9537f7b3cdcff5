// The linear scan of complex numbers and its adjoint on CUDA; the mathematics are those of
// kernels/cpu/complex_scan.cpp. Floor (complex elements moved per element): 3 forward, 5 backward.

#include "monoid/kernels/cuda/scan_pairs.cuh"
#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/monoid.h"

namespace monoid::cuda {
namespace {

struct ComplexStep {
  using State = Complex<float>;
  using Summary = Affine<State>;
  static constexpr int kInputs = 4, kOutputs = 2, kClosing = -1;
  static constexpr unsigned kPairedInputs = 0b0101, kPairedOutputs = 0b01;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false;
  struct Element : Summary {
    __device__ Summary link() const { return *this; }
  };

  __device__ static Element element(const float (&in)[4]) { return {State(in[0], in[1]), State(in[2], in[3])}; }
  __device__ static void open(float (&in)[4]) { in[0] = in[1] = 0; }
  __device__ static State advance(const Element& e, State h, float (&out)[2]) {
    const State after = static_cast<const Summary&>(e).advance(h);
    out[0] = after.re, out[1] = after.im;
    return after;
  }
};

struct ComplexAdjoint {
  using State = Complex<float>;
  using Summary = Affine<State>;
  static constexpr int kInputs = 6, kOutputs = 4, kClosing = 2;
  static constexpr unsigned kPairedInputs = 0b010101, kPairedOutputs = 0b0101;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false;
  struct Element {
    State back, previous, cotangent;  // the first two conjugated
    __device__ Summary link() const { return {back, back * cotangent}; }
  };

  __device__ static Element element(const float (&in)[6]) {
    return {State(in[0], -in[1]), State(in[2], -in[3]), State(in[4], in[5])};
  }
  __device__ static State advance(const Element& e, State carry, float (&out)[4]) {
    const State delta = e.cotangent + carry, a = delta * e.previous;
    out[0] = a.re, out[1] = a.im;
    out[2] = delta.re, out[3] = delta.im;
    return e.back * delta;
  }
};

/// [batch, time, channel] of a tensor of pairs: the extents of its scan.
ScanExtents extents_of(const Tensor& pairs) { return {pairs.size(0), pairs.size(1), pairs.size(2)}; }

}  // namespace

void complex_scan(const Tensor& a, const Tensor& b, const Tensor& initial, Tensor& states, Tensor& final,
                  Direction direction) {
  const Tensor decays = on_pair_grid(a), inputs = on_pair_grid(b), entering = on_pair_grid(initial);
  dispatch_storage("complex_scan", a.dtype(), [&]<class T>() {
    Scan<ComplexStep, T> scan;
    scan.in[0] = rows_of<const T>(decays, direction);
    scan.in[2] = rows_of<const T>(inputs, direction);
    scan.out[0] = rows_of<T>(states, direction);
    run_scan("complex_scan", scan, extents_of(states), states.device().index, entering, final);
  });
}

void complex_scan_gradient(const Tensor& a, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                           const Tensor& final_cotangent, Tensor& a_gradient, Tensor& b_gradient,
                           Tensor& initial_gradient, Direction direction) {
  const Direction back = opposite(direction);
  const Tensor decays = on_pair_grid(a), entering = on_pair_grid(initial), cotangent = on_pair_grid(states_cotangent),
               leaving = on_pair_grid(final_cotangent);
  dispatch_storage("complex_scan", a.dtype(), [&]<class T>() {
    Scan<ComplexAdjoint, T> scan{.closing = rows_of<const T>(entering)};
    scan.in[0] = rows_of<const T>(decays, back);
    scan.in[2] = rows_of<const T>(states, back, 1);
    scan.in[4] = rows_of<const T>(cotangent, back);
    scan.out[0] = rows_of<T>(a_gradient, back);
    scan.out[2] = rows_of<T>(b_gradient, back);
    run_scan("complex_scan", scan, extents_of(states), states.device().index, leaving, initial_gradient);
  });
}

}  // namespace monoid::cuda

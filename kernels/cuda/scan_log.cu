// Log scans and their adjoint on CUDA; the mathematics are those of kernels/cpu/scan.cpp, the engine is
// device/scan_engine.cuh. Floor (elements moved per element): 3 forward, 6 backward.

#include "monoid/kernels/cuda/device/gates.cuh"
#include "monoid/kernels/cuda/scan_run.cuh"
#include "monoid/kernels/monoid.h"

namespace monoid::cuda {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct LogStep {
  using State = float;
  using Summary = LogAffine<float, GateMath>;
  static constexpr int kInputs = 2, kOutputs = 1, kClosing = -1;
  static constexpr float kEmpty = kNothing, kClosed = kNothing;
  static constexpr bool kNeverNegative = false;
  struct Element : Summary {
    __device__ Summary link() const { return *this; }
  };

  __device__ static Element element(const float (&in)[2]) { return {in[0], in[1]}; }
  __device__ static void open(float (&in)[2]) { in[0] = kNothing; }
  __device__ static float advance(const Element& e, float log_h, float (&out)[1]) {
    return out[0] = static_cast<const Summary&>(e).advance(log_h);
  }
};

// The new term's share of the sum is a gate; a state of -inf has no shares, and sends back 0.
struct LogAdjoint {
  using State = float;
  using Summary = GatedRun<float>;
  static constexpr int kInputs = 5, kOutputs = 2, kClosing = 2;
  static constexpr float kEmpty = 0, kClosed = kNothing;
  static constexpr bool kNeverNegative = false;
  struct Element {
    SignedGate gate;
    float input;
    bool empty;
    __device__ float advance(float carry) const { return gate.keep(input + carry); }
    __device__ const Element& link() const { return *this; }
  };

  __device__ static Element element(const float (&in)[5]) {
    const auto& [log_a, log_b, previous, state, cotangent] = in;
    const float logit = log_b - (log_a + previous), e = exp_of_minus(fabsf(logit));
    const bool empty = state == kNothing;
    return {empty ? SignedGate::of(0, 1) : SignedGate::of(e * reciprocal_approximate(1 + e), logit),
            empty ? 0 : cotangent, empty};
  }
  __device__ static float advance(const Element& e, float carry, float (&out)[2]) {
    const float delta = e.input + carry, taken = e.gate.take(delta);
    out[1] = e.empty ? 0 : taken;
    return out[0] = e.gate.keep(delta);
  }
};

}  // namespace

void log_scan(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, Tensor& states, Tensor& final,
              Direction direction) {
  dispatch_storage("log_scan", log_a.dtype(), [&]<class T>() {
    run_scan<LogStep, T>("log_scan",
                         {.in = {rows_of<const T>(log_a, direction), rows_of<const T>(log_b, direction)},
                          .out = {rows_of<T>(states, direction)}},
                         states, log_initial, final);
  });
}

void log_scan_gradient(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, const Tensor& states,
                       const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& log_a_gradient,
                       Tensor& log_b_gradient, Tensor& log_initial_gradient, Direction direction) {
  const Direction back = opposite(direction);
  dispatch_storage("log_scan", log_a.dtype(), [&]<class T>() {
    run_scan<LogAdjoint, T>(
        "log_scan",
        {.in = {rows_of<const T>(log_a, back), rows_of<const T>(log_b, back), rows_of<const T>(states, back, 1),
                rows_of<const T>(states, back), rows_of<const T>(states_cotangent, back)},
         .out = {rows_of<T>(log_a_gradient, back), rows_of<T>(log_b_gradient, back)},
         .closing = rows_of<const T>(log_initial)},
        states, final_cotangent, log_initial_gradient);
  });
}

}  // namespace monoid::cuda

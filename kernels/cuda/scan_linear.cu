// Linear scans and their adjoint on CUDA; the mathematics are those of kernels/cpu/scan.cpp, the engine is
// device/scan_engine.cuh. Floor (elements moved per element): 3 forward, 5 backward.

#include "monoid/kernels/cuda/scan_run.cuh"
#include "monoid/kernels/monoid.h"

namespace monoid::cuda {
namespace {

struct LinearStep {
  using State = float;
  using Summary = Affine<float>;
  static constexpr int kInputs = 2, kOutputs = 1, kClosing = -1;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false;
  struct Element : Affine<float> {
    __device__ Affine<float> link() const { return *this; }
  };

  __device__ static Element element(const float (&in)[2]) { return {in[0], in[1]}; }
  __device__ static void open(float (&in)[2]) { in[0] = 0; }
  __device__ static float advance(const Element& e, float h, float (&out)[1]) {
    return out[0] = static_cast<const Affine<float>&>(e).advance(h);
  }
};

struct LinearAdjoint {
  using State = float;
  using Summary = Affine<float>;
  static constexpr int kInputs = 3, kOutputs = 2, kClosing = 1;
  static constexpr float kEmpty = 0, kClosed = 0;
  static constexpr bool kNeverNegative = false;
  struct Element {
    float a, previous, cotangent;
    __device__ Affine<float> link() const { return {a, a * cotangent}; }
  };

  __device__ static Element element(const float (&in)[3]) { return {in[0], in[1], in[2]}; }
  __device__ static float advance(const Element& e, float carry, float (&out)[2]) {
    const float delta = e.cotangent + carry;
    out[0] = delta * e.previous;
    out[1] = delta;
    return e.a * delta;
  }
};

}  // namespace

void linear_scan(const Tensor& a, const Tensor& b, const Tensor& initial, Tensor& states, Tensor& final,
                 Direction direction) {
  dispatch_storage("linear_scan", a.dtype(), [&]<class T>() {
    run_scan<LinearStep, T>("linear_scan",
                            {.in = {rows_of<const T>(a, direction), rows_of<const T>(b, direction)},
                             .out = {rows_of<T>(states, direction)}},
                            states, initial, final);
  });
}

void linear_scan_gradient(const Tensor& a, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                          const Tensor& final_cotangent, Tensor& a_gradient, Tensor& b_gradient,
                          Tensor& initial_gradient, Direction direction) {
  const Direction back = opposite(direction);
  dispatch_storage("linear_scan", a.dtype(), [&]<class T>() {
    run_scan<LinearAdjoint, T>(
        "linear_scan",
        {.in = {rows_of<const T>(a, back), rows_of<const T>(states, back, 1), rows_of<const T>(states_cotangent, back)},
         .out = {rows_of<T>(a_gradient, back), rows_of<T>(b_gradient, back)},
         .closing = rows_of<const T>(initial)},
        states, final_cotangent, initial_gradient);
  });
}

}  // namespace monoid::cuda

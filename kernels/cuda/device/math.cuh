#pragma once

#include <cmath>

// The scalar functions behind kernels/functions.h on the device: CUDA's own, to within 2 ulp of f32, never the
// fast-math ones; and the same care at the ends of the range as on the CPU.

namespace monoid::cuda {

struct DeviceMath {
  __device__ static float exp(float x) { return expf(x); }
  __device__ static float log(float x) { return logf(x); }
  __device__ static float log1p(float x) { return log1pf(x); }
  __device__ static float sqrt(float x) { return sqrtf(x); }
  __device__ static float abs(float x) { return fabsf(x); }
  __device__ static float tanh(float x) { return tanhf(x); }
  __device__ static float erf(float x) { return erff(x); }
  __device__ static float sin(float x) { return sinf(x); }
  __device__ static float cos(float x) { return cosf(x); }
  __device__ static float pow(float x, float exponent) { return powf(x, exponent); }

  __device__ static float sigmoid(float x) {
    const float e = expf(-fabsf(x)), larger = 1 / (1 + e);
    return x < 0 ? e * larger : larger;
  }
  /// log(1 + exp(x)).
  __device__ static float softplus(float x) { return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x))); }
  /// exp(-x^2 / 2).
  __device__ static float gaussian(float x) { return expf(-0.5f * (x * x)); }
  /// The normal distribution function; `bell` is gaussian(x), which other devices reuse.
  __device__ static float normal_cdf(float x, float /*bell*/) { return normcdff(x); }
};

}  // namespace monoid::cuda

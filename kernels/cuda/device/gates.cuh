#pragma once

// Gates of the scans on the device: MinorGate of kernels/monoid.h in one register, and their exponentials. These come
// from ex2.approx and rcp.approx: within 2 ulp plus |x| ulp for exp(x), so a gate of 1e-9 still has 6 digits, far more
// than a state keeps of it; below 2^-126 they are 0. One division serves a gate and g together.

#include "monoid/kernels/cuda/device/approximate.cuh"

namespace monoid::cuda {

/// The functions behind LogAffine.
struct GateMath {
  __device__ static float exp(float x) { return exp2_approximate(x * 1.44269504f); }
  /// For x in [0, 1], to 3 ulp: 2 atanh(s) with s = x / (2 + x), an odd polynomial. Small results keep their digits:
  /// slow recurrences add up thousands of them.
  __device__ static float log1p(float x) {
    const float s = x * reciprocal_approximate(2 + x), w = s * s;
    const float tail = fmaf(fmaf(0.281577784f, w, 0.279651578f), w, 0.400245952f);
    return s * fmaf(fmaf(tail, w, 0.666663216f), w, 2.f);
  }
};

/// exp(-x).
__device__ __forceinline__ float exp_of_minus(float x) { return exp2_approximate(x * -1.44269504f); }

/// The larger of x and a bound, NaN where x is.
__device__ __forceinline__ float at_least(float x, float bound) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(bound));
  return result;
}
/// exp(min(x, 0)), NaN where x is.
__device__ __forceinline__ float exp_of_negative_part(float x) { return exp_of_minus(at_least(-x, 0)); }

/// g(x) = x + 0.5 for x >= 0, sigmoid(x) below, from the sigmoid of min(x, 0).
__device__ __forceinline__ float g_of(float x, float sigmoid_of_negative_part) {
  return fmaxf(x, 0) + sigmoid_of_negative_part;
}

__device__ __forceinline__ float sigmoid_of_minus(float x) {
  const float e = exp_of_minus(fabsf(x)), larger = reciprocal_approximate(1 + e);
  return x > 0 ? e * larger : larger;
}

/// A gate z held by the smaller of z and 1 - z; the sign bit says which: set where it is 1 - z.
struct SignedGate {
  float minor;

  /// From the logit of z, or any number of its sign.
  __device__ static SignedGate of(float magnitude, float logit) {
    return {__int_as_float(__float_as_int(magnitude) | (~__float_as_int(logit) & 0x80000000))};
  }
  __device__ bool leans() const { return __float_as_int(minor) < 0; }
  __device__ float magnitude() const { return fabsf(minor); }

  /// (1 - z) h + z v, (1 - z) x and z x, each by the form that does not cancel.
  __device__ float blend(float h, float v) const { return fmaf(minor, v - h, leans() ? v : h); }
  __device__ float keep(float x) const { return fmaf(-minor, x, leans() ? 0 : x); }
  __device__ float take(float x) const { return fmaf(minor, x, leans() ? x : 0); }
};

}  // namespace monoid::cuda

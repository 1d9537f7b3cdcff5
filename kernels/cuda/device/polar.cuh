#pragma once

#include "monoid/kernels/cuda/device/approximate.cuh"

namespace monoid::cuda {

/// The functions behind PolarGate. The root gets a step of Newton's: a magnitude 2 ulp off 1 would show after 65536
/// steps.
struct PolarMath {
  __device__ static float exp(float x) { return exp2_approximate(x * 1.44269504f); }
  __device__ static float inverse(float x) { return reciprocal_approximate(x); }
  __device__ static float inverse_root(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return fmaf(0.5f * y, fmaf(-x * y, y, 1.f), y);
  }
};

}  // namespace monoid::cuda

#pragma once

// Single instructions. Those of the special function unit give results to about 2 ulp, and 0 below 2^-126.

namespace monoid::cuda {

__device__ __forceinline__ float exp2_approximate(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ __forceinline__ float reciprocal_approximate(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
/// The smaller one, or NaN where either is.
__device__ __forceinline__ float not_above(float x, float limit) {
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(limit));
  return result;
}

}  // namespace monoid::cuda

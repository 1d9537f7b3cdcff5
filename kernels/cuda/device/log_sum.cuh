#pragma once

#include <cmath>
#include <limits>

#include "monoid/kernels/cuda/device/math.cuh"

namespace monoid::cuda {

/// log(sum(exp(x))) of some numbers, as their maximum and the sum of exp(x - maximum). Infinite maxima are their own
/// case: an infinite element is 0 below itself. A NaN makes both NaN.
struct LogSum {
  float greatest = -std::numeric_limits<float>::infinity();
  float sum = 0;

  /// exp(x - shift) without a NaN where both are infinite.
  __device__ static float scaled(float x, float shift) { return x == shift ? 1.f : expf(x - shift); }

  /// The larger one, or NaN where either is.
  __device__ static float larger(float a, float b) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
  }

  /// `Math` has the exponential that is precise enough for the result.
  template <class Math = DeviceMath, int N>
  __device__ __forceinline__ void add(const float (&x)[N]) {
    float top = x[0];
#pragma unroll
    for (int i = 1; i < N; ++i) top = larger(top, x[i]);
    if (!(top <= greatest)) {
      top = larger(top, greatest);
      sum *= scaled(greatest, top);
      greatest = top;
    }
    if (fabsf(greatest) < std::numeric_limits<float>::infinity()) {
#pragma unroll
      for (int i = 0; i < N; ++i) sum += Math::exp(x[i] - greatest);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) sum += x[i] != greatest ? Math::exp(x[i] - greatest) : greatest > 0 ? 1.f : 0.f;
    }
  }

  __device__ float log() const { return greatest + logf(sum); }
};

__device__ __forceinline__ LogSum combine(LogSum a, LogSum b) {
  LogSum result;
  result.greatest = LogSum::larger(a.greatest, b.greatest);
  result.sum =
      a.sum * LogSum::scaled(a.greatest, result.greatest) + b.sum * LogSum::scaled(b.greatest, result.greatest);
  return result;
}

}  // namespace monoid::cuda

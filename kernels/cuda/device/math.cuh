#pragma once

#include <cmath>

#include "monoid/core/dtype.h"
#include "monoid/kernels/cuda/device/approximate.cuh"
#include "monoid/kernels/erfc.h"

// The scalar functions behind kernels/functions.h on the device: CUDA's own or as precise, never the fast-math ones;
// and the same care at the ends of the range as on the CPU. In bf16 an element has about 27 instructions before
// arithmetic takes longer than memory, so the functions of hidden layers avoid divisions and have a bf16 form.

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

  /// x, or the bound that it is beyond; a NaN becomes one of them.
  __device__ static float at_least(float x, float low) { return fmaxf(x, low); }
  __device__ static float within(float x, float limit) { return fminf(fmaxf(x, -limit), limit); }

  /// 1 / x to 1 ulp, for |x| in [2^-126, 2^126].
  __device__ static float reciprocal(float x) { return __fdividef(1.f, x); }

  __device__ static float sigmoid(float x) {
    const float e = expf(-fabsf(x)), larger = reciprocal(1 + e);
    return x < 0 ? e * larger : larger;
  }
  /// log(1 + exp(x)).
  __device__ static float softplus(float x) { return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x))); }
  /// exp(-x^2 / 2), with what rounding takes off the square put back.
  __device__ static float gaussian(float x) {
    const float t = fminf(fabsf(x), 20.f), square = t * t, rest = fmaf(t, t, -square), bell = expf(-0.5f * square);
    return fmaf(-0.5f * bell, rest, bell);
  }
  /// The normal distribution function; `bell` is gaussian(x).
  __device__ static float normal_cdf(float x, float bell) {
    const float t = fabsf(x) * 0.70710678f, within = t > kErfcEnd ? kErfcEnd : t, w = reciprocal(within + kErfcShift);
    const float tail = 0.5f * bell * (w * erfc_fit(within * w));
    return x > 0 ? 1 - tail : tail;
  }
};

/// The same to 12 bits or better, for results that are rounded to the 8 of bf16: single instructions of the special
/// function unit and short fits, so that even in bf16 memory takes longer than arithmetic.
struct Bf16Math : DeviceMath {
  __device__ static float exp(float x) { return exp2_approximate(1.44269504f * x); }
  __device__ static float sigmoid(float x) { return reciprocal_approximate(1 + exp(-x)); }
  __device__ static float gaussian(float x) { return exp2_approximate(-0.72134752f * x * x); }
  /// The upper tail beyond t >= 0 is gaussian(t) P(1 / (t + 2)), P a minimax fit to 2.3e-4.
  __device__ static float normal_cdf(float x, float bell) {
    const float w = reciprocal_approximate(fabsf(x) + 2);
    const float tail = bell * w * (0.40169185f + w * (0.71811208f + w * (1.96226541f - w * 2.01238596f)));
    return x > 0 ? 1 - tail : tail;
  }
};

template <class T>
struct MathOf {
  using type = DeviceMath;
};
template <>
struct MathOf<bfloat16> {
  using type = Bf16Math;
};
/// The functions for results stored as T.
template <class T>
using MathFor = typename MathOf<T>::type;

}  // namespace monoid::cuda

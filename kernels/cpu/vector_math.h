#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "monoid/kernels/erfc.h"

// Scalar functions for the bodies of vectorised() loops. The float ones are branch-free polynomials that the compiler
// turns into vector code on every instruction set; the double ones are the standard library's. Infinity and NaN behave
// as in <cmath>. Measured errors of the float functions, in units of the last place, are in the tests: 1 to 3
// (normal_cdf: 7 in its far tail). Polynomials are minimax fits for relative error on the interval the comment beside
// them gives.

namespace monoid::cpu {
namespace detail {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLog2E = std::numbers::log2e_v<float>;
// ln 2 in two parts: 16 bits, so that a whole multiple below 256 is exact, and the rest.
constexpr float kLn2High = 45426.0f / 65536.0f;
constexpr float kLn2Low = static_cast<float>(std::numbers::ln2 - 45426.0 / 65536.0);
// Added to a number below 2^22, leaves its nearest integer in the low mantissa bits: rounding without a call.
constexpr float kRound = 0x1.8p23f;
constexpr float kSqrtHalf = std::numbers::sqrt2_v<float> / 2;

[[gnu::always_inline]] constexpr float polynomial(float, float constant) { return constant; }
/// constant + x * (next + x * (...)).
template <class... Coefficients>
[[gnu::always_inline]] constexpr float polynomial(float x, float constant, Coefficients... higher) {
  return constant + x * polynomial(x, higher...);
}

[[gnu::always_inline]] inline uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
[[gnu::always_inline]] inline float scaled(float x, uint32_t exponent) {
  return std::bit_cast<float>(bits(x) + (exponent << 23));
}

/// exp(r) - 1 for |r| < 0.374.
[[gnu::always_inline]] inline float expm1_reduced(float r) {
  return r +
         r * r *
             polynomial(r, 4.999998968e-01f, 1.666646901e-01f, 4.166899474e-02f, 8.374511519e-03f, 1.380265170e-03f);
}

/// exp(x + correction) for |correction| < 0.027. Results under the smallest normal number are 0.
[[gnu::always_inline]] inline float exp_corrected(float x, float correction) {
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = ((x - n * kLn2High) - n * kLn2Low) + correction;
  const float y = scaled(1 + expm1_reduced(r), bits(shifted));
  const float above_zero = x < -87.3365f ? 0.0f : y;
  return x <= 88.7228317f ? above_zero : x * kInfinity;
}

/// (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f in [sqrt(1/2), sqrt(2)].
[[gnu::always_inline]] inline float log_tail(float f) {
  return polynomial(f, 3.333333171e-01f, -2.500082103e-01f, 2.000122684e-01f, -1.662335738e-01f, 1.420175848e-01f,
                    -1.316018250e-01f, 1.276157491e-01f, -7.634494258e-02f);
}

/// log(1 + f) + n log 2 for 1 + f in [sqrt(1/2), sqrt(2)].
[[gnu::always_inline]] inline float log_reduced(float f, float n) {
  const float square = f * f;
  const float tail = f * square * log_tail(f);
  return (f + ((tail + n * kLn2Low) - 0.5f * square)) + n * kLn2High;
}

/// The n for which x / 2^n is in [sqrt(1/2), sqrt(2)), for normal x > 0.
[[gnu::always_inline]] inline int32_t exponent_of(float x) {
  return static_cast<int32_t>(bits(x) - bits(kSqrtHalf)) >> 23;
}

/// log(1 + x) for x in [0, 1]. Nested so that a tiny x, as exponentials far from 0 are, makes no subnormal square.
[[gnu::always_inline]] inline float log1p_unit(float x) {
  const bool halves = x >= std::numbers::sqrt2_v<float> - 1;
  const float f = halves ? 0.5f * x - 0.5f : x, n = halves ? 1.0f : 0.0f;
  return (f * (1 - f * (0.5f - f * log_tail(f))) + n * kLn2Low) + n * kLn2High;
}
inline double log1p_unit(double x) { return std::log1p(x); }

/// erfc(t) exp(t^2) for t >= 0. Constant from 9.4 on, where erfc is 0.
[[gnu::always_inline]] inline float erfc_scaled(float t) {
  const float within = t > kErfcEnd ? kErfcEnd : t, w = 1 / (within + kErfcShift);
  return w * erfc_fit(within * w);
}

}  // namespace detail

/// Results under the smallest normal number are 0: subnormal arithmetic costs a hundred cycles and is never wanted.
[[gnu::always_inline]] inline float exp(float x) { return detail::exp_corrected(x, 0); }
inline double exp(double x) { return std::exp(x); }

/// As exp, to the base 2.
[[gnu::always_inline]] inline float exp2(float x) {
  using namespace detail;
  const float shifted = x + kRound;
  const float f = x - (shifted - kRound);
  const float y = scaled(1 + f * polynomial(f, 6.931472031e-01f, 2.402264788e-01f, 5.550331854e-02f, 9.618439844e-03f,
                                            1.339913257e-03f, 1.535315441e-04f),
                         bits(shifted));
  const float above_zero = x < -126.0f ? 0.0f : y;
  return x < 128.0f ? above_zero : x * kInfinity;
}
inline double exp2(double x) { return std::exp2(x); }

/// exp(x) - 1 without cancellation.
[[gnu::always_inline]] inline float expm1(float x) {
  using namespace detail;
  const float low = x < -20.0f ? -20.0f : x, within = low > 89.0f ? 89.0f : low;
  const float shifted = within * kLog2E + kRound;
  const float n = shifted - kRound;
  const float q = expm1_reduced((within - n * kLn2High) - n * kLn2Low);
  const float half_scale = scaled(0.5f, bits(shifted));  // 2^(n - 1): 2^n would overflow before the result does
  return 2 * (half_scale * q + (half_scale - 0.5f));
}
inline double expm1(double x) { return std::expm1(x); }

[[gnu::always_inline]] inline float log(float x) {
  using namespace detail;
  const bool subnormal = x < std::numeric_limits<float>::min();
  const float normal = subnormal ? x * 0x1p23f : x;
  const int32_t n = exponent_of(normal);
  const float f = scaled(normal, 0u - static_cast<uint32_t>(n)) - 1;
  const float y = log_reduced(f, static_cast<float>(n) - (subnormal ? 23.0f : 0.0f));
  const float at_most_zero = x == 0 ? -kInfinity : std::numeric_limits<float>::quiet_NaN();
  const float finite = x < kInfinity ? y : x;
  return x > 0 ? finite : at_most_zero;
}
inline double log(double x) { return std::log(x); }

/// log(1 + x) with the full precision of a small x.
[[gnu::always_inline]] inline float log1p(float x) {
  using namespace detail;
  const float sum = 1 + x;
  const int32_t n = exponent_of(sum);
  // (1 + x) / 2^n - 1 from x itself: both x / 2^n and 1 / 2^n are exact.
  const int32_t biased = 127 - n;
  const float inverse = std::bit_cast<float>((biased > 0 ? biased : 0) << 23);
  const float f = scaled(x, 0u - static_cast<uint32_t>(n)) + (inverse - 1);
  const float y = log_reduced(f, static_cast<float>(n));
  const float at_most_zero = sum == 0 ? -kInfinity : std::numeric_limits<float>::quiet_NaN();
  const float finite = x < kInfinity ? y : x;
  return sum > 0 ? finite : at_most_zero;
}
inline double log1p(double x) { return std::log1p(x); }

[[gnu::always_inline]] inline float tanh(float x) {
  const float e = cpu::expm1(-2 * std::abs(x));
  return std::copysign(e / (2 + e), x);
}
inline double tanh(double x) { return std::tanh(x); }

/// 1 / (1 + exp(-x)), with the full relative precision of small results.
template <class T>
[[gnu::always_inline]] inline T sigmoid(T x) {
  return 1 / (1 + cpu::exp(-x));
}

/// log(1 + exp(x)).
template <class T>
[[gnu::always_inline]] inline T softplus(T x) {
  return (x > 0 ? x : T(0)) + detail::log1p_unit(cpu::exp(-std::abs(x)));
}

/// log(exp(a) + exp(b)); -infinity stands for 0 on either side.
template <class T>
[[gnu::always_inline]] inline T log_add_exp(T a, T b) {
  const T distance = a == b ? T(0) : std::abs(a - b);
  return (a > b ? a : b) + detail::log1p_unit(cpu::exp(-distance));
}

[[gnu::always_inline]] inline float erf(float x) {
  using namespace detail;
  const float t = std::abs(x);
  const float near = t + t * polynomial(t * t, 1.283791592e-01f, -3.761256391e-01f, 1.128261838e-01f, -2.679828211e-02f,
                                        5.043684273e-03f, -6.270511953e-04f);
  const float far = 1 - cpu::exp(-t * t) * erfc_scaled(t);
  return std::copysign(t < 0.86f ? near : far, x);
}
inline double erf(double x) { return std::erf(x); }

/// exp(-x^2 / 2): x is cut at 1/256 so that its square is exact and what is left corrects the exponent.
[[gnu::always_inline]] inline float gaussian(float x) {
  constexpr float kCut = 0x1.8p15f;
  const float t = std::abs(x);
  const float high = (t + kCut) - kCut;
  return detail::exp_corrected(-0.5f * high * high, -0.5f * (t - high) * (t + high));
}
inline double gaussian(double x) { return std::exp(-0.5 * x * x); }

/// The normal distribution function, (1 + erf(x / sqrt 2)) / 2, with the full relative precision of small results.
/// `bell` is gaussian(x), which who wants the one mostly wants too.
[[gnu::always_inline]] inline float normal_cdf(float x, float bell) {
  const float tail = 0.5f * bell * detail::erfc_scaled(std::abs(x) * (std::numbers::sqrt2_v<float> / 2));
  return x > 0 ? 1 - tail : tail;
}
inline double normal_cdf(double x, double) { return 0.5 * std::erfc(x * (-std::numbers::sqrt2 / 2)); }

/// The functions behind kernels/functions.h.
struct VectorMath {
  static auto exp(auto x) { return cpu::exp(x); }
  static auto log(auto x) { return cpu::log(x); }
  static auto log1p(auto x) { return cpu::log1p(x); }
  static auto sigmoid(auto x) { return cpu::sigmoid(x); }
  static auto softplus(auto x) { return cpu::softplus(x); }
  static auto tanh(auto x) { return cpu::tanh(x); }
  static auto erf(auto x) { return cpu::erf(x); }
  static auto gaussian(auto x) { return cpu::gaussian(x); }
  static auto normal_cdf(auto x, auto bell) { return cpu::normal_cdf(x, bell); }
  static auto at_least(auto x, auto low) { return x < low ? low : x; }
  static auto within(auto x, auto limit) {
    const auto above = at_least(x, -limit);
    return above > limit ? limit : above;
  }
  static auto sqrt(auto x) { return std::sqrt(x); }
  static auto abs(auto x) { return std::abs(x); }
  // Rare enough to stay library calls, which reduce any argument exactly.
  static auto sin(auto x) { return std::sin(x); }
  static auto cos(auto x) { return std::cos(x); }
  static auto pow(auto x, auto exponent) { return std::pow(x, exponent); }
};

}  // namespace monoid::cpu

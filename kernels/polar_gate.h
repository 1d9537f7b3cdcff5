#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/host_device.h"
#include "monoid/kernels/monoid.h"

namespace monoid {

/// GateLoop's transition a = sigmoid(|z|) z / |z| and what its gradient needs, without an angle. A backend's Math has
/// exp, inverse and inverse_root.
template <class T>
struct PolarGate {
  Complex<T> unit;    // z / |z|; 1 at z = 0
  T size;             // sigmoid(|z|)
  T radial, angular;  // the derivatives of a along and across z: size (1 - size) and size / |z|; 0 at z = 0

  MONOID_HOST_DEVICE constexpr Complex<T> value() const { return Complex<T>(size * unit.re, size * unit.im); }
  /// The gradient of z from that of a.
  MONOID_HOST_DEVICE constexpr Complex<T> pull_back(Complex<T> gradient) const {
    const Complex<T> turned = conjugate(unit) * gradient;
    return unit * Complex<T>(radial * turned.re, angular * turned.im);
  }
};

/// GateLoopOptions for a kernel: numbers, 1 or 0, and masks of bits, because loops with conditions that never change do
/// not vectorise.
template <class T>
struct TransitionRule {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  T turns, gated, fraction;
  Bits re_mask, im_mask;  // what is used of z

  explicit TransitionRule(const GateLoopOptions& options)
      : turns(options.transition == Transition::complex ? T(1) : T(0)),
        gated(options.transition != Transition::one ? T(1) : T(0)),
        fraction(gated * static_cast<T>(options.gradient_fraction)),
        re_mask(gated > 0 ? ~Bits(0) : Bits(0)),
        im_mask(turns > 0 ? ~Bits(0) : Bits(0)) {}

  MONOID_HOST_DEVICE static T masked(T x, Bits mask) {
    return __builtin_bit_cast(T, __builtin_bit_cast(Bits, x) & mask);
  }

  /// Scaled by the larger part first: |z| may be anything whose square over- or underflows. 1 / |z| stops at 1e20,
  /// where the direction of z has lost its meaning.
  template <class Math>
  MONOID_HOST_DEVICE PolarGate<T> gate(T given_re, T given_im) const {
    constexpr T kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max() / 4;
    const T re = masked(given_re, re_mask), im = masked(given_im, im_mask);
    const T x = re < 0 ? -re : re, y = im < 0 ? -im : im, larger = x > y ? x : y;
    const T nothing = larger < kLeast ? T(1) : T(0);  // then the direction is that of 1
    const T above = larger < kLeast ? kLeast : larger, scale = above > kMost ? kMost : above;
    const T shrink = Math::inverse(scale);
    const T p = re * shrink + nothing, q = im * shrink;
    const T square = p * p + q * q, root = Math::inverse_root(square);
    const T e = Math::exp(-scale * (square * root)), sigmoid = Math::inverse(1 + e);
    const T inverse = shrink * root, bounded = inverse < T(1e20) ? inverse : T(1e20);
    const T share = fraction * (1 - nothing);
    return {Complex<T>(p * root, q * root), gated * sigmoid + (1 - gated), share * (e * sigmoid * sigmoid),
            turns * share * (bounded * sigmoid)};
  }
};

}  // namespace monoid

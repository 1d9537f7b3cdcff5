#pragma once

#include <limits>

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

/// GateLoopOptions for a kernel.
template <class T>
struct TransitionRule {
  bool turns, gated;
  T fraction;

  explicit TransitionRule(const GateLoopOptions& options)
      : turns(options.transition == Transition::complex),
        gated(options.transition != Transition::one),
        fraction(gated ? static_cast<T>(options.gradient_fraction) : T(0)) {}

  /// Scaled by the larger part first: |z| may be anything whose square over- or underflows. 1 / |z| stops at 1e20,
  /// where the direction of z has lost its meaning.
  template <class Math>
  MONOID_HOST_DEVICE PolarGate<T> gate(T re, T given_im) const {
    constexpr T kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max() / 4;
    const T im = turns ? given_im : T(0);
    const T x = re < 0 ? -re : re, y = im < 0 ? -im : im, larger = x > y ? x : y;
    const bool zero = larger < kLeast;
    const T above = larger < kLeast ? kLeast : larger, scale = above > kMost ? kMost : above;
    const T shrink = Math::inverse(scale);
    const T p = zero ? T(1) : re * shrink, q = zero ? T(0) : im * shrink;
    const T square = p * p + q * q, root = Math::inverse_root(square);
    const T e = Math::exp(-scale * (square * root)), size = Math::inverse(1 + e);
    const T inverse = shrink * root, bounded = inverse < T(1e20) ? inverse : T(1e20);
    const T share = zero ? T(0) : fraction;
    return {Complex<T>(gated ? p * root : T(1), gated ? q * root : T(0)), gated ? size : T(1),
            share * (e * size * size), turns ? share * (bounded * size) : T(0)};
  }
};

}  // namespace monoid

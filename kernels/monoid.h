#pragma once

#include <cmath>
#include <limits>

#include "monoid/kernels/host_device.h"

// The monoids behind the scans. An element is what one time step does to a state; combine(left, right) is "left, then
// right" and is associative, so that a stretch of time can be summarised before the state that enters it is known.
// Every struct here is plain data that the host and the device share:
//
//   T advance(T state)               what the element does to a state
//   static M identity()              the element that does nothing
//   M combine(M left, M right)       one element for both, left first
//
// A softmax partial is its own state: to advance is to combine.

namespace monoid {

// --------------------------------------------------------------------------------------------------- complex numbers

/// A complex number as memory holds it: two reals.
template <class T>
struct Complex {
  T re, im;

  Complex() = default;
  MONOID_HOST_DEVICE constexpr explicit Complex(T real, T imaginary = 0) : re(real), im(imaginary) {}

  MONOID_HOST_DEVICE friend constexpr Complex operator+(Complex x, Complex y) {
    return Complex(x.re + y.re, x.im + y.im);
  }
  MONOID_HOST_DEVICE friend constexpr Complex operator*(Complex x, Complex y) {
    return Complex(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re);
  }
};

// Real and complex numbers under the same names: what a scan over either kind is written in.
template <class T>
MONOID_HOST_DEVICE constexpr T multiply_add(T a, T x, T b) {
  return a * x + b;
}
/// Two dependent steps from x to the result, if the compiler fuses them.
template <class T>
MONOID_HOST_DEVICE constexpr Complex<T> multiply_add(Complex<T> a, Complex<T> x, Complex<T> b) {
  return Complex<T>(a.re * x.re + (b.re - a.im * x.im), a.re * x.im + (a.im * x.re + b.im));
}
template <class T>
MONOID_HOST_DEVICE constexpr T conjugate(T x) {
  return x;
}
template <class T>
MONOID_HOST_DEVICE constexpr Complex<T> conjugate(Complex<T> x) {
  return Complex<T>(x.re, -x.im);
}
template <class T>
MONOID_HOST_DEVICE constexpr T real_part(T x) {
  return x;
}
template <class T>
MONOID_HOST_DEVICE constexpr T real_part(Complex<T> x) {
  return x.re;
}

// ---------------------------------------------------------------------------------------------------------- affine

/// h -> a h + b, over real or complex numbers.
template <class T>
struct Affine {
  T a, b;

  MONOID_HOST_DEVICE static constexpr Affine identity() { return {T(1), T(0)}; }
  MONOID_HOST_DEVICE constexpr T advance(T h) const { return multiply_add(a, h, b); }
  MONOID_HOST_DEVICE friend constexpr Affine combine(const Affine& left, const Affine& right) {
    return {right.a * left.a, right.advance(left.b)};
  }
};

// ------------------------------------------------------------------------------------------------------ log-affine

/// The scalar functions a monoid needs; a backend puts its own in place.
struct StandardMath {
  template <class T>
  MONOID_HOST_DEVICE static T exp(T x) {
    return std::exp(x);
  }
  template <class T>
  MONOID_HOST_DEVICE static T log1p(T x) {
    return std::log1p(x);
  }
  template <class T>
  MONOID_HOST_DEVICE static T log(T x) {
    return std::log(x);
  }
};

/// log(exp(x) + exp(y)). Equal arguments are their own case: infinities of one sign must not meet as inf - inf.
template <class Math = StandardMath, class T>
MONOID_HOST_DEVICE inline T logaddexp(T x, T y) {
  const T apart = x == y ? T(0) : (x > y ? y - x : x - y);
  return (x > y ? x : y) + Math::log1p(Math::exp(apart));
}

/// log h -> log(exp(log_a + log h) + exp(log_b)): Affine for positive numbers, in logarithms; -inf stands for 0.
template <class T, class Math = StandardMath>
struct LogAffine {
  T log_a, log_b;

  MONOID_HOST_DEVICE static constexpr LogAffine identity() { return {T(0), -std::numeric_limits<T>::infinity()}; }
  MONOID_HOST_DEVICE T advance(T log_h) const { return logaddexp<Math>(log_a + log_h, log_b); }
  MONOID_HOST_DEVICE friend LogAffine combine(const LogAffine& left, const LogAffine& right) {
    return {left.log_a + right.log_a, right.advance(left.log_b)};
  }
};

// -------------------------------------------------------------------------------------------------- matrix product

/// A row of N numbers. The state of a matrix scan is N of them, which never meet.
template <class T, int N>
struct MatrixRow {
  T x[N];
};

/// row -> row X: the order of the factors matters. What kernels do in registers and tiles (kernels/matrix_scan.h).
template <class T, int N>
struct MatrixProduct {
  MatrixRow<T, N> row[N];

  MONOID_HOST_DEVICE static constexpr MatrixProduct identity() {
    MatrixProduct result{};
    for (int i = 0; i < N; ++i) result.row[i].x[i] = T(1);
    return result;
  }
  MONOID_HOST_DEVICE constexpr MatrixRow<T, N> advance(const MatrixRow<T, N>& h) const {
    MatrixRow<T, N> result{};
    for (int k = 0; k < N; ++k)
      for (int j = 0; j < N; ++j) result.x[j] += h.x[k] * row[k].x[j];
    return result;
  }
  MONOID_HOST_DEVICE friend constexpr MatrixProduct combine(const MatrixProduct& left, const MatrixProduct& right) {
    MatrixProduct result{};
    for (int i = 0; i < N; ++i) result.row[i] = right.advance(left.row[i]);
    return result;
  }
};

// ------------------------------------------------------------------------------------------- gates and convex maps

/// A gate z in [0, 1] held by the smaller of z and 1 - z. That one has full relative precision, while 1 - z rounded
/// to T does not: at z = 6e-6 in f32 it would put the decay off by 0.5%, at every step in the same direction.
template <class T>
struct MinorGate {
  T minor;
  T lean;  // positive where z > 1/2, so that minor is 1 - z; a number, because compilers vectorise those better

  /// (1 - z) h + z v, by the form that does not cancel.
  MONOID_HOST_DEVICE constexpr T blend(T h, T v) const {
    const T step = minor * (v - h), near_old = h + step, near_new = v - step;
    return lean > 0 ? near_new : near_old;
  }
  /// (1 - z) x and z x.
  MONOID_HOST_DEVICE constexpr T keep(T x) const {
    const T part = minor * x, rest = x - part;
    return lean > 0 ? part : rest;
  }
  MONOID_HOST_DEVICE constexpr T take(T x) const {
    const T part = minor * x, rest = x - part;
    return lean > 0 ? rest : part;
  }
};

/// One step of a gated average: h -> (1 - z) h + z value.
template <class T>
struct GatedStep {
  MinorGate<T> gate;
  T value;

  MONOID_HOST_DEVICE constexpr T advance(T h) const { return gate.blend(h, value); }
};

/// Its adjoint: delta -> (1 - z) (delta + input).
template <class T>
struct GatedAdjoint {
  MinorGate<T> gate;
  T input;

  MONOID_HOST_DEVICE constexpr T advance(T delta) const { return gate.keep(delta + input); }
};

/// h -> keep h + add where keep = 1 - lose comes from gates: any run of gated steps or of their adjoints. Both keep and
/// lose are carried, so that slow decay (lose small) and fast decay (keep small) stay equally precise.
template <class T>
struct GatedRun {
  T keep, lose, add;

  MONOID_HOST_DEVICE static constexpr GatedRun identity() { return {T(1), T(0), T(0)}; }
  MONOID_HOST_DEVICE constexpr T advance(T h) const { return lose > T(0.5) ? keep * h + add : (h - lose * h) + add; }
  MONOID_HOST_DEVICE friend constexpr GatedRun combine(const GatedRun& left, const GatedRun& right) {
    return {left.keep * right.keep, left.lose + left.keep * right.lose, right.advance(left.add)};
  }
  /// combine(left, a single step), without rounding the step to a run first.
  template <class Step>
  MONOID_HOST_DEVICE friend constexpr GatedRun combine(const GatedRun& left, const Step& step) {
    return {step.gate.keep(left.keep), step.gate.blend(left.lose, T(1)), step.advance(left.add)};
  }
};

// ------------------------------------------------------------------------------------------------- softmax partial

/// What a softmax-weighted average knows of some of its keys: the greatest score, and sums of exp(score - max) and of
/// exp(score - max) value. Its own state: a key is {score, 1, value}, and stretches of keys combine in any grouping.
/// Rows of values share max and sum; a kernel holds the row elsewhere and applies weight() to it. A Math to the base 2
/// wants scores times log2(e).
template <class T, class Math = StandardMath>
struct SoftmaxPartial {
  T max, sum, output;

  MONOID_HOST_DEVICE static constexpr SoftmaxPartial identity() {
    return {-std::numeric_limits<T>::infinity(), T(0), T(0)};
  }
  /// What sums taken below `from` count below `to`, which is not less. Equal infinities must not meet as inf - inf.
  MONOID_HOST_DEVICE static constexpr T weight(T from, T to) { return from == to ? T(1) : Math::exp(from - to); }
  MONOID_HOST_DEVICE friend constexpr SoftmaxPartial combine(const SoftmaxPartial& left, const SoftmaxPartial& right) {
    const T max = left.max > right.max ? left.max : right.max;
    const T of_left = weight(left.max, max), of_right = weight(right.max, max);
    return {max, of_left * left.sum + of_right * right.sum, of_left * left.output + of_right * right.output};
  }
  /// The average, 0 over no keys, and log(sum of exp(score)), -inf over none.
  MONOID_HOST_DEVICE constexpr T average() const { return sum == T(0) ? T(0) : output / sum; }
  MONOID_HOST_DEVICE constexpr T log_sum() const { return sum == T(0) ? max : max + Math::log(sum); }
};

}  // namespace monoid

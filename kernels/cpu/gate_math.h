#pragma once

#include <cmath>

#include "monoid/kernels/cpu/vector_math.h"

namespace monoid::cpu {

/// The functions behind PolarGate.
struct PolarMath {
  template <class T>
  static T exp(T x) {
    return cpu::exp(x);
  }
  template <class T>
  static T inverse(T x) {
    return 1 / x;
  }
  template <class T>
  static T inverse_root(T x) {
    return 1 / std::sqrt(x);
  }
};

}  // namespace monoid::cpu

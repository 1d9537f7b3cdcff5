#pragma once

#include <limits>

namespace monoid::cpu {

/// x - greatest, the argument of a stable exp, without a NaN at infinities: an infinite greatest element is 0 below
/// itself and everything else -infinity below it; in a row of -infinities every element stays -infinity.
template <class T>
class Shifted {
 public:
  explicit Shifted(T greatest) : shift_(greatest == -std::numeric_limits<T>::infinity() ? T(0) : greatest) {}

  T shift() const { return shift_; }
  T operator()(T x) const { return x == shift_ ? T(0) : x - shift_; }

 private:
  T shift_;
};

}  // namespace monoid::cpu

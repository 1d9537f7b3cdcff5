#pragma once

#include "monoid/core/random.h"

namespace monoid {

/// Zeroes elements with `probability` and scales the rest by 1 / (1 - probability), but only when forward is given a
/// generator: training and evaluation differ by an argument, not by a mode.
class Dropout {
 public:
  /// 0 <= probability < 1.
  explicit Dropout(double probability);

  Tensor forward(const Tensor& x, Generator* generator) const;
  /// The same of x weight^T, plus a residual if given, which loses nothing.
  Tensor of_linear(const Tensor& x, const Tensor& weight, const Tensor& residual, Generator* generator) const;

 private:
  double probability_;
};

/// One draw for a whole batch: bool [1], true with `probability`. Made on the device from the generator, so that a
/// captured step draws anew at each replay: where(coin, fresh, carried) forgets a state now and then.
Tensor coin(double probability, Device device, Generator& generator);

}  // namespace monoid

#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

/// The left padding of a batch: sequences of different lengths that end together. What a layer computes at padding is
/// never looked at, but it must not reach the steps after it: padding leaves a recurrent state as it is, is zero to a
/// convolution and hidden from attention. Without padding everything here returns what it is given.
class Padding {
 public:
  Padding() = default;
  /// count i32 [batch]: how many of the `time` steps at the left of each sequence are padding, 0 to `time`. Undefined:
  /// none.
  Padding(const Tensor& count, int64_t time);

  explicit operator bool() const { return count_.defined(); }
  const Tensor& count() const { return count_; }

  /// x [batch, time, channel] with its padding set to zero: the input of a convolution over time.
  Tensor zeroed(const Tensor& x) const;
  /// A packed projection [batch, time, channel] in which the channels from `gates` on are -infinity at padding, so that
  /// no new value passes, and the ones before are zero.
  Tensor close_gates(const Tensor& packed, int64_t gates) const;

 private:
  Tensor count_;
  Tensor padded_;  // bool [batch, time, 1]
};

}  // namespace monoid

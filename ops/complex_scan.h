#pragma once

#include "monoid/ops/scan.h"

namespace monoid {

/// states_t = a_t states_{t-1} + b_t over the complex numbers, which are pairs along a trailing axis of 2:
/// a, b and states are [batch, time, channel, 2], `initial` and `final` [batch, channel, 2]. The rest is as for
/// linear_scan: strided views are read in place (a pair and the channels adjacent), any extent may be 0, and every
/// input gets its gradient, which is that of its real and imaginary parts.
ScanResult complex_scan(const Tensor& a, const Tensor& b, const Tensor& initial = {},
                        Direction direction = Direction::forward);

}  // namespace monoid

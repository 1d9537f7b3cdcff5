#pragma once

#include "monoid/tools/bench/cases.h"

namespace monoid::bench {

/// What the device reaches (a CPU with the threads in use), measured at start: the rates that floors are computed from.
struct Ceiling {
  double bytes_per_second;  // a copy well beyond the caches, bytes read plus bytes written
  double flops_per_second;  // a matrix product: f32 2048^3 on a CPU, 8192^3 of the target's dtype on a GPU

  /// The shortest time in seconds in which `bytes` can move and `flops` be computed, at the same time.
  double floor(double bytes, double flops) const;
};

Ceiling measure_ceiling(const Target& target);

}  // namespace monoid::bench

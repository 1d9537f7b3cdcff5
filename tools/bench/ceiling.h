#pragma once

namespace monoid::bench {

/// What this machine reaches with the threads in use, measured at start: the rates that floors are computed from.
struct Ceiling {
  double bytes_per_second;  // a copy well beyond the caches, bytes read plus bytes written
  double flops_per_second;  // f32 matrix product of 2048 x 2048 x 2048

  /// The shortest time in seconds in which `bytes` can move and `flops` be computed, at the same time.
  double floor(double bytes, double flops) const;
};

Ceiling measure_ceiling();

}  // namespace monoid::bench

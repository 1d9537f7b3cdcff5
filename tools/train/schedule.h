#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <optional>

namespace monoid {

/// The learning rate: a straight line up to `peak` over `warmup` steps, then half a cosine down to `floor` at `end`,
/// and `floor` from there on. The line begins at `start` with the first step; without one it comes from 0, before the
/// first step, and reaches the peak with the last.
struct Schedule {
  double peak, floor;
  int64_t warmup, end;
  std::optional<double> start = {};

  /// Of the step that has `step` steps before it.
  double operator()(int64_t step) const {
    if (step < warmup && start)
      return *start + (peak - *start) * static_cast<double>(step) / static_cast<double>(warmup);
    if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
    if (step >= end) return floor;
    const double progress = static_cast<double>(step - warmup) / static_cast<double>(end - warmup);
    return floor + (peak - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
};

}  // namespace monoid

#pragma once

#include <cstdint>

#include "monoid/kernels/host_device.h"

// States that a gradient needs and nobody wants to store: the forward scan keeps one of kRecallSteps, the state that
// enters a group of steps, and the adjoint makes the others again. Groups end with the sequence, so that the adjoint,
// which comes from there, always meets whole ones first; the earliest group may be short.

namespace monoid {

inline constexpr int64_t kRecallSteps = 4;

MONOID_HOST_DEVICE constexpr int64_t recall_groups(int64_t time) { return (time + kRecallSteps - 1) / kRecallSteps; }
/// Steps count in the order of the forward scan.
MONOID_HOST_DEVICE constexpr bool opens_recall_group(int64_t step, int64_t time) {
  return step == 0 || (time - step) % kRecallSteps == 0;
}
MONOID_HOST_DEVICE constexpr int64_t recall_group_of(int64_t step, int64_t time) {
  return recall_groups(time) - recall_groups(time - step);
}

}  // namespace monoid

#include "monoid/core/kernel.h"

#include <algorithm>

namespace monoid {
namespace {

std::vector<const KernelSlot*>& slots() {
  static auto& list = *new std::vector<const KernelSlot*>;
  return list;
}

}  // namespace

void KernelSlot::enrol(DeviceKind kind) {
  bound_[static_cast<size_t>(kind)] = true;
  if (std::find(slots().begin(), slots().end(), this) == slots().end()) slots().push_back(this);
}

void KernelSlot::missing(Device device) const {
  fail("no ", device.kind, " kernel for '", name_, "' in this build; move the tensors to another device");
}

const std::vector<const KernelSlot*>& bound_slots() {
  bind_kernels_once();
  return slots();
}

}  // namespace monoid

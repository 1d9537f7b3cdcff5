#include "monoid/core/kernel.h"

#include <algorithm>

namespace monoid {
namespace {

std::vector<const KernelSlot*>& slots() {
  static auto& list = *new std::vector<const KernelSlot*>;
  return list;
}

// The capture of this thread.
thread_local bool capturing = false;
thread_local Device captured_device;
thread_local const char* last_called = nullptr;

}  // namespace

CaptureScope::CaptureScope(Device device) {
  capturing = true;
  captured_device = device;
  last_called = nullptr;
}

CaptureScope::~CaptureScope() { capturing = false; }

bool CaptureScope::active() { return capturing; }
const char* CaptureScope::last_kernel() { return last_called ? last_called : "no op yet"; }

void KernelSlot::note_capture(Device device) const {
  check(device == captured_device, "graph: '", name_, "' runs on ", device, " while a graph of ", captured_device,
        " is recorded, which would never run it again; move its tensors to ", captured_device,
        " or take it out of the recorded work");
  last_called = name_;
}

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

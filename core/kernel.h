#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "monoid/core/device.h"
#include "monoid/core/error.h"
#include "monoid/core/tensor.h"

namespace monoid {

/// Binds every kernel of this build to its slot, once. Runs by itself on the first use of any slot.
void bind_kernels_once();

/// While one lives, this thread records a graph of a device: kernels of other kinds would run once and never again, so
/// their slots refuse. Remembers the last slot called, for messages.
class CaptureScope {
 public:
  explicit CaptureScope(Device device);
  ~CaptureScope();
  CaptureScope(const CaptureScope&) = delete;
  CaptureScope& operator=(const CaptureScope&) = delete;

  static bool active();
  /// The slot called last in the capture that is going on, or "no op yet".
  static const char* last_kernel();
};

/// What every slot has, whatever its signature; bound slots form a list that tests walk.
class KernelSlot {
 public:
  const char* name() const { return name_; }
  bool has(DeviceKind kind) const { return bound_[static_cast<size_t>(kind)]; }
  /// Calls so far, over all devices: lets a test see that nothing went unexercised.
  uint64_t calls() const { return calls_.load(std::memory_order_relaxed); }

 protected:
  constexpr explicit KernelSlot(const char* name) : name_(name) {}
  void enrol(DeviceKind kind);
  [[noreturn]] void missing(Device device) const;
  /// Called while a graph is recorded.
  void note_capture(Device device) const;

  const char* name_;
  std::array<bool, kDeviceKinds> bound_{};
  mutable std::atomic<uint64_t> calls_{0};
};

/// Every slot that has a kernel, in binding order.
const std::vector<const KernelSlot*>& bound_slots();

template <class Signature>
class Kernel;

/// A slot: a name and one function pointer per device kind. Calling it is the only indirect call between an op and
/// its kernel; the device is that of the first tensor argument.
template <class... Args>
class Kernel<void(Args...)> : public KernelSlot {
 public:
  using Function = void(Args...);

  constexpr explicit Kernel(const char* name) : KernelSlot(name) {}

  void bind(DeviceKind kind, Function& function) {
    functions_[static_cast<size_t>(kind)] = &function;
    enrol(kind);
  }

  void operator()(Args... args) const {
    bind_kernels_once();
    const Device device = first_device(args...);
    Function* function = functions_[static_cast<size_t>(device.kind)];
    if (!function) [[unlikely]]
      missing(device);
    calls_.fetch_add(1, std::memory_order_relaxed);
    if (CaptureScope::active()) note_capture(device);
    function(static_cast<Args>(args)...);
  }

 private:
  static Device first_device(const Tensor& tensor, const auto&...) { return tensor.device(); }
  static Device first_device(const auto&, const auto&... rest) { return first_device(rest...); }

  std::array<Function*, kDeviceKinds> functions_{};
};

}  // namespace monoid

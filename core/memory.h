#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "monoid/core/device.h"

namespace monoid {

/// What a kind of device must offer to hold tensors. The CPU's is built in; a backend binds its own.
struct Runtime {
  int (*device_count)() = nullptr;
  void* (*allocate)(size_t bytes, int index) = nullptr;  // nullptr when out of memory
  void (*release)(void* address, size_t bytes, int index) = nullptr;
  /// Copies bytes; host memory on either side makes it complete before returning.
  void (*copy)(void* to, Device to_device, const void* from, Device from_device, size_t bytes) = nullptr;
  void (*fill_zero)(void* address, size_t bytes, int index) = nullptr;
  void (*synchronize)(int index) = nullptr;
};

/// The runtime of a device kind; an Error that says what to do when this build or machine has none.
const Runtime& runtime(DeviceKind kind);
void bind_runtime(DeviceKind kind, const Runtime& runtime);
bool is_available(Device device);
/// Waits until everything queued on the device has finished.
void synchronize(Device device);

/// Bytes of one device. `allocated`: in live tensors, rounded to size classes; `reserved`: held from the system.
struct MemoryStats {
  size_t allocated = 0;
  size_t reserved = 0;
  size_t peak_allocated = 0;
  size_t peak_reserved = 0;
  uint64_t requests = 0;  // allocations asked for
  uint64_t misses = 0;    // of these, the ones that went to the system
};

MemoryStats memory_stats(Device device = kCpu);
void reset_peak_memory(Device device = kCpu);
/// Gives every cached block that no tensor uses back to the system.
void empty_cache(Device device = kCpu);
/// Refuses to reserve more than `bytes` on the device; 0 removes the limit.
void set_memory_limit(size_t bytes, Device device = kCpu);

/// One block of device memory from the caching allocator; goes back to the cache when it dies.
class Storage {
 public:
  /// 64-byte aligned, not initialised. Out of memory is one Error with requested, in use and peak, thrown after
  /// the cache was emptied and the request tried again.
  Storage(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_;
  size_t bytes_;
  Device device_;
};

}  // namespace monoid

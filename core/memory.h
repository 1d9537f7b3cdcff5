#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "monoid/core/device.h"
#include "monoid/core/runtime.h"

namespace monoid {

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

/// Free blocks that wait for the next request. Each device has one; streams and graphs have their own, because a block
/// may be reused without waiting only by work that is queued after the work that used it before.
class MemoryPool {
 public:
  explicit MemoryPool(Device device);
  /// Gives its blocks back to the system.
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// The one that this thread allocates from on a device.
  static const std::shared_ptr<MemoryPool>& current(Device device);
  Device device() const { return device_; }

 private:
  friend class CachingAllocator;

  Device device_;
  std::map<size_t, std::vector<void*>> free_;  // by size class
};

/// Makes a pool the current one of this thread while it lives.
class PoolScope {
 public:
  explicit PoolScope(std::shared_ptr<MemoryPool> pool);
  ~PoolScope();
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;
};

/// One block of device memory from the current pool; goes back to that pool when it dies.
class Storage {
 public:
  /// 64-byte aligned, not initialised. Out of memory is one Error with requested, in use and peak, thrown after
  /// the cache was emptied and the request tried again.
  Storage(size_t bytes, Device device);
  /// Memory of somebody else's, who gets it back through `release`.
  Storage(void* data, size_t bytes, Device device, std::function<void()> release);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  std::shared_ptr<MemoryPool> pool_;  // null: not ours
  std::function<void()> release_;
  void* data_;
  size_t bytes_;
  Device device_;
};

}  // namespace monoid

#include "monoid/core/memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <utility>

#include "monoid/core/error.h"

namespace monoid {
namespace {

// Eight classes per power of two: at most 12.5% of a block is slack.
size_t size_class(size_t bytes) {
  bytes = std::max(bytes, size_t{512});
  const size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

// The pools that scopes on this thread have made current, innermost last.
thread_local std::vector<std::shared_ptr<MemoryPool>> pool_scopes;

}  // namespace

/// Hands out the blocks of one device's pools, so that a training step allocates from the system only once.
class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device), own_(std::make_shared<MemoryPool>(device)) {}

  const std::shared_ptr<MemoryPool>& own() const { return own_; }

  void* allocate(MemoryPool& pool, size_t requested) {
    const size_t bytes = size_class(requested);
    std::lock_guard lock(mutex_);
    ++stats_.requests;
    void* address = take_cached(pool, bytes);
    if (!address) address = reserve(bytes);
    if (!address) {
      release_cached(pool);
      release_cached(*own_);
      address = reserve(bytes);
    }
    check(address, "out of memory on ", device_, ": requested ", requested, " bytes, ", stats_.allocated,
          " are in live tensors (peak ", stats_.peak_allocated, ", limit ", limit_ ? str(limit_) : "none",
          "); use a smaller batch or context, or run layers again in backward (recompute)");
    stats_.allocated += bytes;
    stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
    return address;
  }

  void release(MemoryPool& pool, void* address, size_t requested) {
    const size_t bytes = size_class(requested);
    std::lock_guard lock(mutex_);
    stats_.allocated -= bytes;
    pool.free_[bytes].push_back(address);
  }

  void empty(MemoryPool& pool) {
    std::lock_guard lock(mutex_);
    release_cached(pool);
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak_allocated = stats_.allocated;
    stats_.peak_reserved = stats_.reserved;
  }

  void set_limit(size_t bytes) {
    std::lock_guard lock(mutex_);
    limit_ = bytes;
  }

 private:
  void* take_cached(MemoryPool& pool, size_t bytes) {
    const auto found = pool.free_.find(bytes);
    if (found == pool.free_.end() || found->second.empty()) return nullptr;
    void* address = found->second.back();
    found->second.pop_back();
    return address;
  }

  void* reserve(size_t bytes) {
    if (limit_ && stats_.reserved + bytes > limit_) return nullptr;
    void* address = runtime(device_).allocate(bytes, device_.index);
    if (!address) return nullptr;
    ++stats_.misses;
    stats_.reserved += bytes;
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
    return address;
  }

  void release_cached(MemoryPool& pool) {
    for (auto& [bytes, blocks] : pool.free_) {
      for (void* block : blocks) runtime(device_).release(block, bytes, device_.index);
      stats_.reserved -= bytes * blocks.size();
    }
    pool.free_.clear();
  }

  Device device_;
  std::mutex mutex_;
  std::shared_ptr<MemoryPool> own_;
  MemoryStats stats_;
  size_t limit_ = 0;
};

namespace {

// Never destroyed: tensors with static storage may outlive any order of destruction.
CachingAllocator& allocator(Device device) {
  static std::mutex mutex;
  static auto& allocators = *new std::array<std::vector<CachingAllocator*>, kDeviceKinds>;
  std::lock_guard lock(mutex);
  auto& of_kind = allocators[static_cast<size_t>(device.kind)];
  while (of_kind.size() <= static_cast<size_t>(device.index)) {
    of_kind.push_back(new CachingAllocator({device.kind, static_cast<int>(of_kind.size())}));
  }
  return *of_kind[static_cast<size_t>(device.index)];
}

}  // namespace

MemoryStats memory_stats(Device device) { return allocator(device).stats(); }
void reset_peak_memory(Device device) { allocator(device).reset_peak(); }
void set_memory_limit(size_t bytes, Device device) { allocator(device).set_limit(bytes); }

void empty_cache(Device device) {
  CachingAllocator& found = allocator(device);
  found.empty(*found.own());
}

MemoryPool::MemoryPool(Device device) : device_(device) {}
MemoryPool::~MemoryPool() { allocator(device_).empty(*this); }

const std::shared_ptr<MemoryPool>& MemoryPool::current(Device device) {
  for (auto scope = pool_scopes.rbegin(); scope != pool_scopes.rend(); ++scope) {
    if ((*scope)->device() == device) return *scope;
  }
  return allocator(device).own();
}

PoolScope::PoolScope(std::shared_ptr<MemoryPool> pool) { pool_scopes.push_back(std::move(pool)); }
PoolScope::~PoolScope() { pool_scopes.pop_back(); }

Storage::Storage(size_t bytes, Device device)
    : pool_(MemoryPool::current(device)),
      data_(allocator(device).allocate(*pool_, bytes)),
      bytes_(bytes),
      device_(device) {}

Storage::Storage(void* data, size_t bytes, Device device, std::function<void()> release)
    : release_(std::move(release)), data_(data), bytes_(bytes), device_(device) {}

Storage::~Storage() {
  if (pool_) {
    allocator(device_).release(*pool_, data_, bytes_);
  } else if (release_) {
    release_();
  }
}

}  // namespace monoid

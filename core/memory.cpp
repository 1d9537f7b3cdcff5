#include "monoid/core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "monoid/core/error.h"
#include "monoid/core/kernel.h"

namespace monoid {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

void* allocate_on_cpu(size_t bytes, int) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* address = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (address && bytes >= kHugePage) madvise(address, bytes, MADV_HUGEPAGE);
  return address;
}

void copy_on_cpu(void* to, Device, const void* from, Device, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);  // an empty vector has no address
}

constexpr Runtime kCpuRuntime{
    .device_count = [] { return 1; },
    .allocate = allocate_on_cpu,
    .release = [](void* address, size_t, int) { std::free(address); },
    .copy = copy_on_cpu,
    .fill_zero = [](void* address, size_t bytes, int) { std::memset(address, 0, bytes); },
    .synchronize = [](int) {},
};

constinit std::array<Runtime, kDeviceKinds> runtimes{kCpuRuntime, Runtime{}};

// Eight classes per power of two: at most 12.5% of a block is slack.
size_t size_class(size_t bytes) {
  bytes = std::max(bytes, size_t{512});
  const size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

/// Free blocks by size class, so that a training step allocates from the system only once.
class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  void* allocate(size_t requested) {
    const size_t bytes = size_class(requested);
    std::lock_guard lock(mutex_);
    ++stats_.requests;
    void* address = take_cached(bytes);
    if (!address) address = reserve(bytes);
    if (!address) {
      release_cached();
      address = reserve(bytes);
    }
    check(address, "out of memory on ", device_, ": requested ", requested, " bytes, ", stats_.allocated,
          " are in live tensors (peak ", stats_.peak_allocated, ", limit ", limit_ ? str(limit_) : "none",
          "); use a smaller batch or context, or checkpoint() layers");
    stats_.allocated += bytes;
    stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
    return address;
  }

  void release(void* address, size_t requested) {
    const size_t bytes = size_class(requested);
    std::lock_guard lock(mutex_);
    stats_.allocated -= bytes;
    free_[bytes].push_back(address);
  }

  void empty() {
    std::lock_guard lock(mutex_);
    release_cached();
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
  void* take_cached(size_t bytes) {
    const auto found = free_.find(bytes);
    if (found == free_.end() || found->second.empty()) return nullptr;
    void* address = found->second.back();
    found->second.pop_back();
    return address;
  }

  void* reserve(size_t bytes) {
    if (limit_ && stats_.reserved + bytes > limit_) return nullptr;
    void* address = runtime(device_.kind).allocate(bytes, device_.index);
    if (!address) return nullptr;
    ++stats_.misses;
    stats_.reserved += bytes;
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
    return address;
  }

  void release_cached() {
    for (auto& [bytes, blocks] : free_) {
      for (void* block : blocks) runtime(device_.kind).release(block, bytes, device_.index);
      stats_.reserved -= bytes * blocks.size();
    }
    free_.clear();
  }

  Device device_;
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  MemoryStats stats_;
  size_t limit_ = 0;
};

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

const Runtime& runtime(DeviceKind kind) {
  if (kind != DeviceKind::cpu) bind_kernels_once();
  const Runtime& found = runtimes[static_cast<size_t>(kind)];
  check(found.allocate, "device: this build of monoid has no ", kind, " backend; use the cpu, or configure with ",
        "-DMONOID_CUDA=ON");
  return found;
}

void bind_runtime(DeviceKind kind, const Runtime& bound) { runtimes[static_cast<size_t>(kind)] = bound; }

bool is_available(Device device) {
  bind_kernels_once();
  const Runtime& found = runtimes[static_cast<size_t>(device.kind)];
  return found.device_count && device.index < found.device_count();
}

void synchronize(Device device) { runtime(device.kind).synchronize(device.index); }

MemoryStats memory_stats(Device device) { return allocator(device).stats(); }
void reset_peak_memory(Device device) { allocator(device).reset_peak(); }
void empty_cache(Device device) { allocator(device).empty(); }
void set_memory_limit(size_t bytes, Device device) { allocator(device).set_limit(bytes); }

Storage::Storage(size_t bytes, Device device)
    : data_(allocator(device).allocate(bytes)), bytes_(bytes), device_(device) {}

Storage::~Storage() { allocator(device_).release(data_, bytes_); }

}  // namespace monoid

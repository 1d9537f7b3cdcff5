#include "monoid/core/runtime.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <iomanip>

#include "monoid/core/error.h"
#include "monoid/core/kernel.h"
#include "monoid/core/parallel.h"

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

DeviceInfo info_of_cpu(int) {
  const auto pages = static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
  return {"cpu", str(threads(), " threads"), pages * static_cast<size_t>(sysconf(_SC_PAGESIZE))};
}

constexpr Runtime kCpuRuntime{
    .description = "CPU",
    .device_count = [] { return 1; },
    .why_unavailable = [](int index) -> const char* { return index == 0 ? nullptr : "there is one cpu"; },
    .info = info_of_cpu,
    .allocate = allocate_on_cpu,
    .release = [](void* address, size_t, int) { std::free(address); },
    .copy = copy_on_cpu,
    .fill_zero = [](void* address, size_t bytes, int) { std::memset(address, 0, bytes); },
    .synchronize = [](int) {},
};

constinit std::array<Runtime, kDeviceKinds> runtimes{kCpuRuntime, Runtime{}};

}  // namespace

const Runtime& runtime(DeviceKind kind) {
  if (kind != DeviceKind::cpu) bind_kernels_once();
  const Runtime& found = runtimes[static_cast<size_t>(kind)];
  check(found.allocate, "device: this build of monoid has no ", kind, " backend; use the cpu, or configure with ",
        "-DMONOID_CUDA=ON");
  return found;
}

const Runtime& runtime(Device device) {
  const Runtime& found = runtime(device.kind);
  if (device.is_cuda()) {
    const char* reason = found.why_unavailable(device.index);
    check(!reason, "device: ", device, " cannot be used: ", reason ? reason : "");
  }
  return found;
}

const QueueRuntime& queues(Device device) {
  const Runtime& found = runtime(device);
  check(found.queue, "device: ", device, " has no streams, events or graphs: what runs on it is done when it returns");
  return *found.queue;
}

void bind_runtime(DeviceKind kind, const Runtime& bound) { runtimes[static_cast<size_t>(kind)] = bound; }

bool is_available(Device device) {
  bind_kernels_once();
  const Runtime& found = runtimes[static_cast<size_t>(device.kind)];
  return found.device_count && device.index >= 0 && !found.why_unavailable(device.index);
}

int device_count(DeviceKind kind) {
  bind_kernels_once();
  const Runtime& found = runtimes[static_cast<size_t>(kind)];
  return found.device_count ? found.device_count() : 0;
}

DeviceInfo device_info(Device device) { return runtime(device).info(device.index); }

std::string describe_backend(DeviceKind kind) {
  bind_kernels_once();
  const Runtime& found = runtimes[static_cast<size_t>(kind)];
  if (!found.allocate) return str("no ", kind, " backend in this build");
  std::string text = found.description;
  for (int index = 0; index < device_count(kind); ++index) {
    const Device device{kind, index};
    if (const char* reason = found.why_unavailable(index)) {
      text += str("; ", device, " cannot be used: ", reason);
      continue;
    }
    const DeviceInfo info = found.info(index);
    const double gibibytes = static_cast<double>(info.memory) / static_cast<double>(size_t{1} << 30);
    text += str("; ", device, " is ", info.name, " (", info.architecture, ", ", std::fixed, std::setprecision(1),
                gibibytes, " GiB)");
  }
  return device_count(kind) > 0 ? text : text + "; no device is visible";
}

void synchronize(Device device) { runtime(device).synchronize(device.index); }

}  // namespace monoid

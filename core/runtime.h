#pragma once

#include <cstddef>
#include <string>

#include "monoid/core/device.h"

namespace monoid {

/// What a device that works through queues offers besides: streams, events, captured graphs. Handles are the backend's
/// own. Every failure is an Error.
struct QueueRuntime {
  void* (*create_stream)(int index) = nullptr;
  void (*destroy_stream)(void* stream, int index) = nullptr;
  void (*synchronize_stream)(void* stream, int index) = nullptr;
  /// Queued on the stream; host memory on either side must be pinned and stay until it is done.
  void (*copy_async)(void* to, const void* from, size_t bytes, void* stream, int index) = nullptr;
  void* (*allocate_pinned)(size_t bytes) = nullptr;  // nullptr when out of memory
  void (*release_pinned)(void* address) = nullptr;

  void* (*create_event)(int index) = nullptr;
  void (*destroy_event)(void* event, int index) = nullptr;
  void (*record_event)(void* event, void* stream, int index) = nullptr;
  void (*wait_event)(void* event, void* stream, int index) = nullptr;
  void (*synchronize_event)(void* event, int index) = nullptr;
  bool (*event_done)(void* event, int index) = nullptr;
  double (*milliseconds_between)(void* start, void* end, int index) = nullptr;

  void (*begin_capture)(void* stream, int index) = nullptr;
  void* (*end_capture)(void* stream, int index) = nullptr;  // a graph that is ready to replay
  void (*abandon_capture)(void* stream, int index) = nullptr;
  void (*replay)(void* graph, void* stream, int index) = nullptr;
  void (*destroy_graph)(void* graph, int index) = nullptr;
};

/// What a device is.
struct DeviceInfo {
  std::string name;          // "NVIDIA H200"
  std::string architecture;  // "compute capability 9.0"
  size_t memory = 0;         // bytes in all
};

/// What a kind of device must offer to hold tensors. The CPU's is built in; a backend binds its own.
struct Runtime {
  const char* description = nullptr;  // of the backend: "CUDA 13.0 for 80;90a"
  int (*device_count)() = nullptr;
  const char* (*why_unavailable)(int index) = nullptr;  // what to do about a device that cannot be used; null if it can
  DeviceInfo (*info)(int index) = nullptr;
  void* (*allocate)(size_t bytes, int index) = nullptr;  // nullptr when out of memory
  void (*release)(void* address, size_t bytes, int index) = nullptr;
  /// Copies bytes; host memory on either side makes it complete before returning.
  void (*copy)(void* to, Device to_device, const void* from, Device from_device, size_t bytes) = nullptr;
  void (*fill_zero)(void* address, size_t bytes, int index) = nullptr;
  void (*synchronize)(int index) = nullptr;
  const QueueRuntime* queue = nullptr;  // null where everything is done when it returns
};

/// The runtime of a device kind; an Error that says what to do when this build or machine has none.
const Runtime& runtime(DeviceKind kind);
/// The same for one device, which must be there and usable.
const Runtime& runtime(Device device);
/// The queues of a device; an Error on the CPU, which has none.
const QueueRuntime& queues(Device device);
void bind_runtime(DeviceKind kind, const Runtime& runtime);

bool is_available(Device device);
/// How many devices of a kind this process sees.
int device_count(DeviceKind kind);
/// A device that can be used, in numbers.
DeviceInfo device_info(Device device);
/// "CUDA 13.0 for 80;90a; cuda:0 is NVIDIA H200 (compute capability 9.0, 139.8 GiB)": the backend of a kind and its
/// devices, or that there is none. Never an Error.
std::string describe_backend(DeviceKind kind);
/// Waits until everything queued on the device has finished; errors that kernels met meanwhile come out here.
void synchronize(Device device);

}  // namespace monoid

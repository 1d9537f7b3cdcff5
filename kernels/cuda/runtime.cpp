// The CUDA side of core/runtime.h: memory, copies, streams, events and graphs, one device at a time.

#include "monoid/kernels/cuda/runtime.h"

#include <array>
#include <mutex>
#include <string>

#include "monoid/core/kernel.h"
#include "monoid/core/memory.h"
#include "monoid/core/stream.h"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {
namespace {

void use(int index) { check_call("device", cudaSetDevice(index)); }

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

// ------------------------------------------------------------------------------------------------------------ devices

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string describe_visible(int count) {
  return str("this process sees ", count, count == 1 ? " GPU" : " GPUs",
             "; see nvidia-smi and CUDA_VISIBLE_DEVICES, or use the cpu");
}

// Empty for a device that works.
std::string find_fault(int index) {
  int count = 0, driver = 0, built = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&built);
  const auto version = [](int number) { return str(number / 1000, '.', number % 1000 / 10); };
  if (status == cudaErrorInsufficientDriver || (status == cudaErrorNoDevice && driver == 0)) {
    return driver == 0 ? std::string("there is no NVIDIA driver on this machine; use the cpu")
                       : str("the driver supports CUDA ", version(driver), ", this build wants ", version(built),
                             "; update the driver, or use the cpu");
  }
  if (status != cudaSuccess && status != cudaErrorNoDevice) return cudaGetErrorString(status);
  if (index < 0 || index >= count) return describe_visible(count);
  return why_no_code(index);
}

const char* why_unavailable(int index) {
  constexpr size_t kMost = 64;
  static std::mutex mutex;
  static auto& known = *new std::array<std::string*, kMost>{};
  const std::lock_guard lock(mutex);
  if (index < 0 || static_cast<size_t>(index) >= kMost) return "there is no such GPU";
  std::string*& reason = known[static_cast<size_t>(index)];
  if (!reason) reason = new std::string(find_fault(index));
  return reason->empty() ? nullptr : reason->c_str();
}

DeviceInfo info(int index) {
  cudaDeviceProp properties{};
  check_call("device", cudaGetDeviceProperties(&properties, index));
  return {properties.name, str("compute capability ", properties.major, ".", properties.minor),
          properties.totalGlobalMem};
}

// ------------------------------------------------------------------------------------------------------------- memory

void* allocate(size_t bytes, int index) {
  use(index);
  void* address = nullptr;
  const cudaError_t status = cudaMalloc(&address, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check_call("allocate", status);
  return address;
}

// Runs in destructors, at the end of the process too, when CUDA may be gone already: an error here has no reader.
void release(void* address, size_t, int index) {
  cudaSetDevice(index);
  cudaFree(address);
  cudaGetLastError();
}

void check_capturable(Device device) {
  check(!Graph::capturing(), "graph: a value of ", device, " is exchanged with the host (item(), to_vector(), from(), ",
        "a copy between devices) after '", CaptureScope::last_kernel(),
        "', which cannot be captured; take it out of the recorded work, or run without a graph");
}

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  const Device device = to_device.is_cuda() ? to_device : from_device;
  const bool on_device = to_device == from_device;
  if (!on_device) check_capturable(device);
  use(device.index);
  const cudaStream_t stream = current_stream(device.index);
  if (to_device.is_cuda() && from_device.is_cuda() && !on_device) {
    // Two GPUs: their streams know nothing of each other.
    check_call("copy", cudaStreamSynchronize(current_stream(from_device.index)));
    check_call("copy", cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, stream));
    check_call("copy", cudaStreamSynchronize(stream));
    return;
  }
  if (bytes > 0) check_call("copy", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
  if (!on_device) {
    check_call("copy", cudaStreamSynchronize(stream));
    check_faults(device.index);
  }
}

void fill_zero(void* address, size_t bytes, int index) {
  use(index);
  if (bytes > 0) check_call("zeros", cudaMemsetAsync(address, 0, bytes, current_stream(index)));
}

void synchronize(int index) {
  use(index);
  check_call("synchronize", cudaDeviceSynchronize());
  check_faults(index);
}

// ------------------------------------------------------------------------------------------------------------ streams

void* create_stream(int index) {
  use(index);
  cudaStream_t stream = nullptr;
  check_call("stream", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_stream(void* stream, int index) {
  cudaSetDevice(index);
  cudaStreamDestroy(stream_of(stream));
}

void synchronize_stream(void* stream, int index) {
  check_call("stream", cudaStreamSynchronize(stream_of(stream)));
  check_faults(index);
}

void copy_async(void* to, const void* from, size_t bytes, void* stream, int index) {
  use(index);
  if (bytes > 0) check_call("copy_async", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)));
}

void* allocate_pinned(size_t bytes) {
  void* address = nullptr;
  if (cudaMallocHost(&address, bytes ? bytes : 1) == cudaSuccess) return address;
  cudaGetLastError();
  return nullptr;
}

void release_pinned(void* address) {
  cudaFreeHost(address);
  cudaGetLastError();
}

void* create_event(int index) {
  use(index);
  cudaEvent_t event = nullptr;
  check_call("event", cudaEventCreate(&event));
  return event;
}

void destroy_event(void* event, int) { cudaEventDestroy(event_of(event)); }

void record_event(void* event, void* stream, int index) {
  use(index);
  check_call("event", cudaEventRecord(event_of(event), stream_of(stream)));
}

void wait_event(void* event, void* stream, int index) {
  use(index);
  check_call("event", cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
}

void synchronize_event(void* event, int index) {
  check_call("event", cudaEventSynchronize(event_of(event)));
  check_faults(index);
}

bool event_done(void* event, int) {
  const cudaError_t status = cudaEventQuery(event_of(event));
  if (status == cudaErrorNotReady) return false;
  check_call("event", status);
  return true;
}

double milliseconds_between(void* start, void* end, int) {
  float milliseconds = 0;
  check_call("event", cudaEventElapsedTime(&milliseconds, event_of(start), event_of(end)));
  return milliseconds;
}

// ------------------------------------------------------------------------------------------------------------- graphs

// Relaxed: the allocator may ask the system for memory while a graph is captured.
void begin_capture(void* stream, int index) {
  use(index);
  check_call("graph", cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeRelaxed));
}

void abandon_capture(void* stream, int) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_of(stream), &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void* end_capture(void* stream, int) {
  cudaGraph_t graph = nullptr;
  check_call("graph", cudaStreamEndCapture(stream_of(stream), &graph));
  cudaGraphExec_t ready = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&ready, graph, 0);
  cudaGraphDestroy(graph);
  check_call("graph", status);
  return ready;
}

void replay(void* graph, void* stream, int index) {
  use(index);
  check_call("graph", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)));
}

void destroy_graph(void* graph, int) {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
  cudaGetLastError();
}

constexpr QueueRuntime kQueues{
    .create_stream = create_stream,
    .destroy_stream = destroy_stream,
    .synchronize_stream = synchronize_stream,
    .copy_async = copy_async,
    .allocate_pinned = allocate_pinned,
    .release_pinned = release_pinned,
    .create_event = create_event,
    .destroy_event = destroy_event,
    .record_event = record_event,
    .wait_event = wait_event,
    .synchronize_event = synchronize_event,
    .event_done = event_done,
    .milliseconds_between = milliseconds_between,
    .begin_capture = begin_capture,
    .end_capture = end_capture,
    .abandon_capture = abandon_capture,
    .replay = replay,
    .destroy_graph = destroy_graph,
};

}  // namespace

void bind_runtime() {
  monoid::bind_runtime(DeviceKind::cuda, {.description = MONOID_CUDA_DESCRIPTION,
                                          .device_count = device_count,
                                          .why_unavailable = why_unavailable,
                                          .info = info,
                                          .allocate = allocate,
                                          .release = release,
                                          .copy = copy,
                                          .fill_zero = fill_zero,
                                          .synchronize = synchronize,
                                          .queue = &kQueues});
}

}  // namespace monoid::cuda

#include "monoid/core/stream.h"

#include <array>
#include <mutex>
#include <vector>

#include "monoid/core/kernel.h"
#include "monoid/core/runtime.h"

namespace monoid {
namespace {

constexpr int kMostDevices = 64;

// What is current on this thread; null: the device's own.
thread_local std::array<const Stream*, kMostDevices> current_streams{};

}  // namespace

struct Stream::Impl {
  Device device;
  void* handle;
  std::shared_ptr<MemoryPool> pool;

  // Work that is still queued runs to its end; giving the pool's memory back waits for it.
  ~Impl() { queues(device).destroy_stream(handle, device.index); }
};

Stream::Stream(Device device)
    : impl_(std::make_shared<Impl>(device, queues(device).create_stream(device.index),
                                   std::make_shared<MemoryPool>(device))) {}

const Stream& Stream::current(Device device) {
  const auto place = static_cast<size_t>(device.index);
  if (const Stream* stream = current_streams.at(place)) return *stream;
  // Never destroyed: tensors with static storage may outlive any order of destruction.
  static std::array<std::once_flag, kMostDevices> once;
  static auto& own = *new std::array<Stream*, kMostDevices>{};
  std::call_once(once.at(place), [&] { own[place] = new Stream(device); });
  return *own[place];
}

Device Stream::device() const { return impl_->device; }
void* Stream::native() const { return impl_->handle; }
const std::shared_ptr<MemoryPool>& Stream::pool() const { return impl_->pool; }
void Stream::synchronize() const { queues(device()).synchronize_stream(native(), device().index); }

StreamScope::StreamScope(const Stream& stream)
    : stream_(stream),
      previous_(std::exchange(current_streams.at(static_cast<size_t>(stream.device().index)), &stream_)),
      pool_(stream.pool()) {}

StreamScope::~StreamScope() { current_streams[static_cast<size_t>(stream_.device().index)] = previous_; }

// ------------------------------------------------------------------------------------------------------------- events

struct Event::Impl {
  Device device;
  void* handle;

  ~Impl() { queues(device).destroy_event(handle, device.index); }
};

Event::Event(Device device) : impl_(std::make_shared<Impl>(device, queues(device).create_event(device.index))) {}

void Event::record() {
  queues(impl_->device).record_event(impl_->handle, Stream::current(impl_->device).native(), impl_->device.index);
}

void Event::wait() const {
  queues(impl_->device).wait_event(impl_->handle, Stream::current(impl_->device).native(), impl_->device.index);
}

void Event::synchronize() const { queues(impl_->device).synchronize_event(impl_->handle, impl_->device.index); }
bool Event::done() const { return queues(impl_->device).event_done(impl_->handle, impl_->device.index); }

double Event::milliseconds_since(const Event& start) const {
  synchronize();
  return queues(impl_->device).milliseconds_between(start.impl_->handle, impl_->handle, impl_->device.index);
}

// ------------------------------------------------------------------------------------------------------------- copies

Tensor pinned(const Shape& shape, DType dtype, DeviceKind kind) {
  const QueueRuntime& queue = queues({kind, 0});
  const size_t bytes = static_cast<size_t>(shape.elements()) * size_of(dtype);
  void* const address = queue.allocate_pinned(bytes);
  check(address, "pinned: out of pinned host memory, requested ", bytes, " bytes for ", dtype, shape);
  return Tensor::wrap(address, shape, dtype, kCpu, [&queue, address] { queue.release_pinned(address); });
}

void copy_async(const Tensor& from, Tensor& to) {
  check(from.shape() == to.shape() && from.dtype() == to.dtype() && from.is_contiguous() && to.is_contiguous(),
        "copy_async: ", describe(from), " and ", describe(to), " differ, or are not contiguous; use copy_from()");
  const Device device = from.device().is_cpu() ? to.device() : from.device();
  queues(device).copy_async(to.raw(), from.raw(), from.bytes(), Stream::current(device).native(), device.index);
}

// ------------------------------------------------------------------------------------------------------------- graphs

struct Graph::Impl {
  Device device;
  std::shared_ptr<MemoryPool> pool;
  void* handle = nullptr;

  ~Impl() {
    if (!handle) return;
    queues(device).destroy_graph(handle, device.index);
  }
};

Graph::Graph(Device device, const std::function<void()>& work)
    : impl_(std::make_shared<Impl>(device, std::make_shared<MemoryPool>(device))) {
  check(!capturing(), "graph: one is being captured on this thread already");
  const QueueRuntime& queue = queues(device);
  const Stream stream(device);
  const StreamScope streams(stream);
  const PoolScope pool(impl_->pool);
  const CaptureScope capture(device);
  queue.begin_capture(stream.native(), device.index);
  try {
    work();
  } catch (...) {
    queue.abandon_capture(stream.native(), device.index);
    throw;
  }
  impl_->handle = queue.end_capture(stream.native(), device.index);
}

void Graph::replay() const {
  check(recorded(), "graph: replayed before anything was recorded");
  queues(impl_->device).replay(impl_->handle, Stream::current(impl_->device).native(), impl_->device.index);
}

bool Graph::capturing() { return CaptureScope::active(); }

}  // namespace monoid

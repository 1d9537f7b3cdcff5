#pragma once

#include <functional>
#include <memory>

#include "monoid/core/memory.h"
#include "monoid/core/tensor.h"

namespace monoid {

/// A queue of work on a GPU: what one stream holds runs in order, what two hold may overlap. Kernels and copies go to
/// the current stream of the thread, which is the device's own until a StreamScope says otherwise. Memory freed while a
/// stream is current is reused on that stream only, so a tensor that crosses to another stream needs an Event in
/// between and must outlive its use there. Errors: the CPU has no streams.
class Stream {
 public:
  explicit Stream(Device device);

  static const Stream& current(Device device);

  Device device() const;
  /// Waits until everything on it has finished.
  void synchronize() const;
  /// The backend's handle, a cudaStream_t.
  void* native() const;
  const std::shared_ptr<MemoryPool>& pool() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// Makes a stream the current one of this thread while it lives.
class StreamScope {
 public:
  explicit StreamScope(const Stream& stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Stream stream_;
  const Stream* previous_;
  PoolScope pool_;
};

/// A mark in a stream: other streams and the host can wait for it, and the time between two can be read.
class Event {
 public:
  explicit Event(Device device);

  /// Puts the mark after everything queued on the current stream so far; a second call moves it.
  void record();
  /// Makes the current stream wait for it. An event that was never recorded is no wait.
  void wait() const;
  void synchronize() const;
  bool done() const;
  /// Time on the device from `start` to this mark; waits for both.
  double milliseconds_since(const Event& start) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// A CPU tensor in pinned memory, which the devices of a kind copy from and to without waiting.
Tensor pinned(const Shape& shape, DType dtype, DeviceKind kind = DeviceKind::cuda);
/// Queues a copy of equally shaped contiguous tensors on the current stream of the GPU side. A CPU side must be pinned,
/// and stay as it is until the stream is through.
void copy_async(const Tensor& from, Tensor& to);

/// Everything that a function queues on a GPU, recorded once and then replayed with one call: no time on the host, and
/// no gaps between kernels. The tensors it reads and writes keep their addresses, so new input is copied into the old
/// tensors. What it allocates lives in memory of the graph's own. What cannot be captured (values needed on the host,
/// kernels of the CPU) is an Error that names the last op.
class Graph {
 public:
  Graph() = default;
  /// Records `work` without running it, on a stream of its own.
  Graph(Device device, const std::function<void()>& work);

  bool recorded() const { return impl_ != nullptr; }
  /// Queues the recorded work on the current stream.
  void replay() const;

  /// True while this thread records a graph.
  static bool capturing();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace monoid

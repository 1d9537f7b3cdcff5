#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "monoid/core/dtype.h"
#include "monoid/core/tensor.h"

namespace monoid::cuda {

/// Throws an Error that names the op, what CUDA said and, where there is one, what to do.
void check_call(std::string_view op, cudaError_t status);

/// What a kernel's launch depends on, read off the GPU once.
struct DeviceLimits {
  int multiprocessors;
  int major, minor;               // compute capability
  size_t shared_bytes_per_block;  // the most a block may ask for
};
const DeviceLimits& limits(int index);

/// The stream that kernels of this thread are queued on.
cudaStream_t current_stream(int index);

/// What a launch may ask for besides.
struct LaunchOptions {
  size_t shared_bytes = 0;  // dynamic shared memory, beyond the 48 KB that every block gets too
  int cluster = 1;          // blocks of adjacent x on the GPU at once: compute capability 9.0 and later
  bool overlaps = false;    // the kernel begins with wait_for_previous() (device/overlap.cuh), so it comes onto the GPU
                            // while the kernel before it still runs, where the GPU can do that
};

/// Queues kernels for one op on the device of a tensor: makes that device the current one of the thread for its life.
///
///   const Launch launch("unary", x);
///   launch(kernel<float>, blocks, threads, from, to, count);
class Launch {
 public:
  Launch(std::string_view op, const Tensor& on) : Launch(op, on.device().index) {}
  Launch(std::string_view op, int index);

  cudaStream_t stream() const { return stream_; }
  const DeviceLimits& device() const { return *limits_; }
  int index() const { return index_; }

  /// An empty grid is no launch.
  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments&&... arguments) const {
    with_shared(kernel, grid, block, 0, static_cast<Arguments&&>(arguments)...);
  }

  /// The same with more than a grid and a block.
  template <class... Parameters, class... Arguments>
  void with(const LaunchOptions& options, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            Arguments&&... arguments) const {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    if (options.shared_bytes > kFreeShared) allow_shared(reinterpret_cast<const void*>(kernel), options.shared_bytes);
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = options.shared_bytes;
    config.stream = stream_;
    config.attrs = attributes;
    if (options.cluster > 1) {
      cudaLaunchAttribute& dimension = attributes[config.numAttrs++];
      dimension.id = cudaLaunchAttributeClusterDimension;
      dimension.val.clusterDim = {static_cast<unsigned>(options.cluster), 1, 1};
    }
    if (options.overlaps && limits_->major >= 9) {
      cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
      overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      overlap.val.programmaticStreamSerializationAllowed = 1;
    }
    check_call(op_, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
  }

  template <class... Parameters, class... Arguments>
  void with_shared(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   Arguments&&... arguments) const {
    with({.shared_bytes = shared_bytes}, kernel, grid, block, static_cast<Arguments&&>(arguments)...);
  }
  template <class... Parameters, class... Arguments>
  void overlapped(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments&&... arguments) const {
    with({.overlaps = true}, kernel, grid, block, static_cast<Arguments&&>(arguments)...);
  }

  /// How many blocks of a kernel one multiprocessor holds at once: for grids that stay on the GPU.
  int blocks_per_multiprocessor(const void* kernel, int threads, size_t shared_bytes) const;

 private:
  static constexpr size_t kFreeShared = 16 << 10;  // leaves room for what the kernel declares itself

  void allow_shared(const void* kernel, size_t bytes) const;

  std::string_view op_;
  int index_;
  cudaStream_t stream_;
  const DeviceLimits* limits_;
};

/// Blocks that cover `count` items, `per_block` each.
constexpr int64_t blocks_for(int64_t count, int64_t per_block) { return (count + per_block - 1) / per_block; }

/// Calls body.template operator()<T>() with the C++ type of a dtype that CUDA kernels compute from: float or bfloat16.
template <class Body>
decltype(auto) dispatch_storage(std::string_view op, DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::bf16:
      return body.template operator()<bfloat16>();
    default:
      fail(op, ": computes from f32 or bf16 on CUDA, got ", dtype, "; cast() it first, or use the cpu");
  }
}

/// The same with the unsigned integer of a dtype's size: for kernels that only move elements.
template <class Body>
decltype(auto) dispatch_bits(DType dtype, Body&& body) {
  switch (size_of(dtype)) {
    case 1:
      return body.template operator()<uint8_t>();
    case 2:
      return body.template operator()<uint16_t>();
    case 4:
      return body.template operator()<uint32_t>();
    default:
      return body.template operator()<uint64_t>();
  }
}

/// A tensor's address, or nullptr where it is undefined.
template <class T>
T* address_of(Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}
template <class T>
const T* address_of(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

}  // namespace monoid::cuda

#include "monoid/kernels/cuda/launch.h"

#include <array>
#include <mutex>
#include <set>
#include <utility>

#include "monoid/core/stream.h"

namespace monoid::cuda {
namespace {

constexpr int kMostDevices = 64;

const char* advice(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
      return "; the driver is older than this build's CUDA: update it, or use the cpu";
    case cudaErrorNoDevice:
      return "; no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES, or use the cpu";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return "; this build has no code for this GPU: configure with -DCMAKE_CUDA_ARCHITECTURES=native";
    case cudaErrorMemoryAllocation:
      return "; use a smaller batch or context";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorStreamCaptureUnmatched:
      return "; it cannot be part of a graph: take it out of the captured work, or run without a graph";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
      return "; a kernel before this one failed: compute-sanitizer finds which";
    default:
      return "";
  }
}

DeviceLimits read_limits(int index) {
  const auto attribute = [index](cudaDeviceAttr which) {
    int value = 0;
    check_call("cuda", cudaDeviceGetAttribute(&value, which, index));
    return value;
  };
  return {attribute(cudaDevAttrMultiProcessorCount), attribute(cudaDevAttrComputeCapabilityMajor),
          attribute(cudaDevAttrComputeCapabilityMinor),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))};
}

}  // namespace

void check_call(std::string_view op, cudaError_t status) {
  if (status == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // a launch error would come up again in the next call
  fail(op, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")", advice(status));
}

const DeviceLimits& limits(int index) {
  static std::array<std::once_flag, kMostDevices> once;
  static std::array<DeviceLimits, kMostDevices> known;
  const auto place = static_cast<size_t>(index);
  std::call_once(once.at(place), [&] { known[place] = read_limits(index); });
  return known[place];
}

cudaStream_t current_stream(int index) {
  return static_cast<cudaStream_t>(Stream::current({DeviceKind::cuda, index}).native());
}

Launch::Launch(std::string_view op, int index) : op_(op), index_(index) {
  check_call(op, cudaSetDevice(index));
  stream_ = current_stream(index);
  limits_ = &limits(index);
}

int Launch::blocks_per_multiprocessor(const void* kernel, int threads, size_t shared_bytes) const {
  int blocks = 0;
  if (shared_bytes > 0) allow_shared(kernel, shared_bytes);
  check_call(op_, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes));
  return blocks;
}

// Asked for once a kernel and device; the limit only ever needs to be the largest.
void Launch::allow_shared(const void* kernel, size_t bytes) const {
  check(bytes <= limits_->shared_bytes_per_block, op_, ": needs ", bytes,
        " bytes of shared memory a block, this GPU has ", limits_->shared_bytes_per_block);
  static std::mutex mutex;
  static auto& allowed = *new std::set<std::pair<const void*, int>>;
  const std::lock_guard lock(mutex);
  if (!allowed.emplace(kernel, index_).second) return;
  cudaFuncAttributes attributes{};
  check_call(op_, cudaFuncGetAttributes(&attributes, kernel));
  const size_t dynamic = limits_->shared_bytes_per_block - attributes.sharedSizeBytes;
  check_call(op_, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(dynamic)));
}

}  // namespace monoid::cuda

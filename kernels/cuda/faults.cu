#include <array>
#include <mutex>

#include "monoid/kernels/cuda/faults.h"

namespace monoid::cuda {
namespace {

constexpr size_t kMostDevices = 64;
std::array<std::once_flag, kMostDevices> once;
std::array<FaultRecord*, kMostDevices> records{};

__global__ void do_nothing() {}

}  // namespace

FaultRecord* fault_record(int index) {
  const auto place = static_cast<size_t>(index);
  std::call_once(once.at(place), [&] {
    void* memory = nullptr;
    check_call("faults", cudaHostAlloc(&memory, sizeof(FaultRecord), cudaHostAllocMapped | cudaHostAllocPortable));
    *static_cast<FaultRecord*>(memory) = {};
    records[place] = static_cast<FaultRecord*>(memory);
  });
  return records[place];
}

void check_faults(int index) {
  FaultRecord* const record = records.at(static_cast<size_t>(index));
  if (!record) return;
  volatile FaultRecord& seen = *record;
  const auto fault = static_cast<Fault>(seen.fault);
  if (fault == Fault::none) [[likely]]
    return;
  const int64_t position = seen.position;
  const double value = seen.value, limit = seen.limit;
  seen.fault = 0;
  seen.claimed = 0;
  const auto whole = static_cast<int64_t>(value), bound = static_cast<int64_t>(limit);
  switch (fault) {
    case Fault::embedding_index:
      fail("embedding: token ", whole, " at position ", position, " is outside the table of ", bound, " rows");
    case Fault::gather_index:
      fail("gather: index ", whole, " at position ", position, " is outside the axis of extent ", bound);
    case Fault::target_class:
      fail("cross_entropy: target ", whole, " of row ", position, " is not one of the ", bound,
           " classes, nor ignore_index");
    case Fault::negative_state:
      fail("scan: the initial state must not be negative, got ", value, " at element ", position,
           "; pass the final state of an earlier scan, or none");
    case Fault::none:
      break;
  }
}

std::string why_no_code(int index) {
  cudaSetDevice(index);
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, do_nothing);
  if (status == cudaSuccess) return {};
  cudaGetLastError();
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, index);
  return str(properties.name, " (compute capability ", properties.major, ".", properties.minor,
             ") needs code that this build does not have (", cudaGetErrorString(status),
             "); configure with -DCMAKE_CUDA_ARCHITECTURES=native, or use the cpu");
}

}  // namespace monoid::cuda

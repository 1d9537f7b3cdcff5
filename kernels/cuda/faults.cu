#include <array>
#include <mutex>

#include "monoid/kernels/cuda/faults.h"

namespace monoid::cuda {
namespace {

constexpr size_t kMostDevices = 64;

struct Place {
  std::once_flag once;
  FaultRecord* record = nullptr;  // on the device
  FoundFault* found = nullptr;    // on the host
};
std::array<Place, kMostDevices> places;

__global__ void do_nothing() {}

}  // namespace

FaultRecord* fault_record(int index) {
  Place& place = places.at(static_cast<size_t>(index));
  std::call_once(place.once, [&] {
    void *host = nullptr, *device = nullptr;
    check_call("faults", cudaHostAlloc(&host, sizeof(FoundFault), cudaHostAllocMapped | cudaHostAllocPortable));
    check_call("faults", cudaMalloc(&device, sizeof(FaultRecord)));
    place.found = static_cast<FoundFault*>(host);
    *place.found = {};
    const FaultRecord record{0, place.found, kNoOverflow};
    check_call("faults", cudaMemcpy(device, &record, sizeof record, cudaMemcpyHostToDevice));
    place.record = static_cast<FaultRecord*>(device);
  });
  return place.record;
}

void check_faults(int index) {
  const Place& place = places.at(static_cast<size_t>(index));
  if (!place.record) return;
  volatile FoundFault& seen = *place.found;
  const auto fault = static_cast<Fault>(seen.fault);
  if (fault == Fault::none) [[likely]]
    return;
  const int64_t position = seen.position;
  const double value = seen.value, limit = seen.limit;
  seen.fault = 0;
  check_call("faults", cudaMemset(place.record, 0, sizeof(FaultRecord::claimed)));
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
    case Fault::rotary_position:
      fail("rotary: position ", whole, " of time step ", position, " is outside of the table of ", bound,
           " positions; build a longer one");
    case Fault::cache_position:
      fail("append_to_cache: sequence ", position, " would end at ", whole, " of ", bound, " places");
    case Fault::none:
      break;
  }
}

unsigned long long take_overflow(int index) {
  FaultRecord* const record = fault_record(index);
  const cudaStream_t stream = current_stream(index);
  unsigned long long found = kNoOverflow;
  check_call("faults", cudaMemcpyAsync(&found, &record->overflow, sizeof found, cudaMemcpyDeviceToHost, stream));
  check_call("faults", cudaMemsetAsync(&record->overflow, 0xff, sizeof found, stream));
  check_call("faults", cudaStreamSynchronize(stream));
  return found;
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

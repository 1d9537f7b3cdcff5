// What cross-entropy does beside its rows: counts the targets, adds up the losses in a fixed order, and multiplies the
// gradient by the cotangent of the loss, which is nearly always 1: then a glance at it is all.

#include "monoid/kernels/cross_entropy.h"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {
namespace {

constexpr int kSumThreads = 1024;
constexpr int64_t kSumElements = 1 << 16;  // of a block that sums or counts

__global__ void __launch_bounds__(kSumThreads)
    count_targets(const int64_t* targets, int64_t count, int64_t ignore_index, unsigned long long* counted) {
  int found = 0;
  const int64_t end = min(count, (blockIdx.x + 1) * kSumElements);
  for (int64_t i = blockIdx.x * kSumElements + threadIdx.x; i < end; i += kSumThreads)
    found += targets[i] != ignore_index;
  found = block_reduce<kSumThreads>(found, 0);
  if (threadIdx.x == 0) atomicAdd(counted, static_cast<unsigned long long>(found));  // integers: any order is the same
}

// One block: the total. Several: a partial sum each, for the next launch.
template <class From>
__global__ void __launch_bounds__(kSumThreads)
    sum_losses(const From* losses, int64_t count, const int64_t* counted, float* total, double* partials) {
  double sum = 0;
  const int64_t end = min(count, (blockIdx.x + 1) * kSumElements);
  for (int64_t i = blockIdx.x * kSumElements + threadIdx.x; i < end; i += kSumThreads)
    sum += static_cast<double>(losses[i]);
  sum = block_reduce<kSumThreads>(sum, 0.);
  if (threadIdx.x > 0) return;
  if (gridDim.x > 1) {
    partials[blockIdx.x] = sum;
  } else {
    const double factor = !counted ? 1 : *counted > 0 ? 1 / static_cast<double>(*counted) : 0;
    *total = static_cast<float>(sum * factor);
  }
}

template <class T, int kV>
__global__ void rescale(const float* dtotal, T* x, int64_t count) {
  const float factor = *dtotal;
  if (factor == 1) return;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
  float values[kV];
  for (int64_t p = thread; p < count / kV; p += threads) {
    load(x + p * kV, values);
#pragma unroll
    for (int i = 0; i < kV; ++i) values[i] *= factor;
    store(x + p * kV, values);
  }
  const int64_t rest = count / kV * kV + thread;
  if (rest < count) x[rest] = narrow<T>(widen(x[rest]) * factor);
}

}  // namespace

void cross_entropy_count(const Tensor& targets, int64_t ignore_index, Tensor& counted) {
  const Launch launch("cross_entropy", targets);
  auto* const address = reinterpret_cast<unsigned long long*>(counted.data<int64_t>());
  check_call("cross_entropy", cudaMemsetAsync(address, 0, sizeof(*address), launch.stream()));
  launch(count_targets, static_cast<unsigned>(blocks_for(targets.elements(), kSumElements)), kSumThreads,
         targets.data<int64_t>(), targets.elements(), ignore_index, address);
}

void cross_entropy_total(const Tensor& losses, const Tensor& counted, Tensor& total) {
  const Launch launch("cross_entropy", losses);
  const int64_t count = losses.elements(), blocks = std::max<int64_t>(1, blocks_for(count, kSumElements));
  const int64_t* const rows = address_of<int64_t>(counted);
  if (blocks == 1) {
    launch(sum_losses<float>, 1, kSumThreads, losses.data<float>(), count, rows, total.data<float>(), nullptr);
    return;
  }
  check(blocks <= kSumElements, "cross_entropy: ", count, " losses are more than one total takes; split the batch");
  Tensor partials = Tensor::empty({blocks}, DType::f64, losses.device());
  double* const sums = partials.data<double>();
  launch(sum_losses<float>, static_cast<unsigned>(blocks), kSumThreads, losses.data<float>(), count, rows, nullptr,
         sums);
  launch(sum_losses<double>, 1, kSumThreads, sums, blocks, rows, total.data<float>(), nullptr);
}

void cross_entropy_rescale(const Tensor& dtotal, Tensor& dlogits) {
  const Launch launch("cross_entropy", dlogits);
  dispatch_storage("cross_entropy", dlogits.dtype(), [&]<class T>() {
    constexpr int kThreads = 256;
    T* const x = dlogits.data<T>();
    const int64_t most = 8 * launch.device().multiprocessors, blocks = blocks_for(dlogits.elements(), kThreads);
    launch(aligned_for<kWide<T>>(x) ? rescale<T, kWide<T>> : rescale<T, 1>,
           static_cast<unsigned>(std::min<int64_t>(blocks, most)), kThreads, dtotal.data<float>(), x,
           dlogits.elements());
  });
}

}  // namespace monoid::cuda

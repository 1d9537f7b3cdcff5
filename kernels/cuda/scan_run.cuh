#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/scan_engine.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/scan.h"

// The host's side of the scan engine: where rows lie, how a scan is laid over the GPU, its launch.

namespace monoid::cuda {

/// Rows of a [batch, time, channel] tensor in the order in which a scan meets them, from a step and a channel on.
template <class T, class Of>
Rows<T> rows_of(Of& tensor, Direction direction, int64_t first = 0, int64_t channel = 0) {
  if (!tensor.defined()) return {};
  const bool forward = direction == Direction::forward;
  const int64_t stride = tensor.strides()[1], start = forward ? first : tensor.size(1) - 1 - first;
  check(stride < (int64_t{1} << 31), "scan: steps lie ", stride, " elements apart, wanted less than 2^31; call ",
        "contiguous() on it");
  return {tensor.template data<std::remove_const_t<T>>() + start * stride + channel, tensor.strides()[0],
          static_cast<int>(forward ? stride : -stride)};
}

/// Rows of a [batch, channel] tensor.
template <class T, class Of>
Rows<T> rows_of(Of& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.template data<std::remove_const_t<T>>(), tensor.strides()[0], 0};
}

constexpr Direction opposite(Direction direction) {
  return direction == Direction::forward ? Direction::reverse : Direction::forward;
}

inline constexpr int kFewestThreads = 128;  // of a block

/// How a scan is laid over the GPU.
struct ScanPlan {
  TimeSplit split;
  int lanes, segments;
};

/// A kernel of each TimeSplit, and what its layout depends on.
template <class Step, class T>
struct ScanKernel {
  void (*kernel)(Scan<Step, T>);
  int steps;                              // of a stretch
  int bytes;                              // that a thread loads ahead
  int resident_blocks, resident_threads;  // the most that one multiprocessor holds
  double worth;                           // how well it does for what it loads
};

/// Of the layouts whose blocks are all on the GPU at once, the one that is best at: as much to do for every
/// multiprocessor, two blocks each, so that one computes while the other waits; rows of whole cache lines; and as many
/// bytes on their way as cover the latency of memory, while many more get into each other's way. Where the channels
/// are too many for that, a thread has one for all of time.
template <class Kernels>
ScanPlan plan_scan(int64_t rows, int64_t steps, const Kernels& kernels, const DeviceLimits& device) {
  constexpr int kNarrowest = 8, kLongestRelay = 8;
  constexpr double kBytesWanted = 36 << 10;
  const int64_t multiprocessors = device.multiprocessors;
  ScanPlan best{TimeSplit::relay, 128, 1};
  double best_score = 0;
  const auto consider = [&](TimeSplit split, int lanes, int segments) {
    const bool relay = split == TimeSplit::relay, spread = split == TimeSplit::spread;
    const auto& kernel = kernels[static_cast<size_t>(split)];
    const int64_t span = spread ? kSpan : 1, threads = lanes * segments, tile = segments * span * kernel.steps;
    if (threads < kFewestThreads || threads > most_scan_threads(split)) return;
    if (relay ? lanes < kWarp || segments > kLongestRelay : segments < 2) return;
    if (segments * span > 1 && (spread ? 4 * tile > steps : tile >= 2 * steps)) return;
    const int64_t blocks = blocks_for(rows, lanes) * span, most = blocks_for(blocks, multiprocessors);
    if (most > kernel.resident_blocks || most * threads > kernel.resident_threads) return;
    const double each = static_cast<double>(blocks) / static_cast<double>(multiprocessors);
    const double balance = each / static_cast<double>(most);
    const double bytes = each * static_cast<double>(threads * kernel.bytes) / kBytesWanted;
    const double supply = bytes < 1 ? bytes : std::pow(bytes, -0.25);
    const double width = lanes >= kWarp ? 1 : lanes == kWarp / 2 ? 0.92 : 0.75;
    const double score = balance * supply * width * (most > 1 ? 1 : 0.9) * kernel.worth;
    if (score > best_score) best_score = score, best = {split, lanes, segments};
  };
  for (int lanes = 128; lanes >= kNarrowest; lanes /= 2) {
    for (int segments = 1; lanes * segments <= most_scan_threads(TimeSplit::relay); segments *= 2) {
      consider(TimeSplit::relay, lanes, segments);
      consider(TimeSplit::fold, lanes, segments);
      if (device.major >= 9) consider(TimeSplit::spread, lanes, segments);
    }
  }
  return best;
}

template <class Step, class T, int kPack>
void queue_scan(const Launch& launch, Scan<Step, T> scan) {
  using Kernel = ScanKernel<Step, T>;
  // Folding gates costs a third of all arithmetic, which counts for more where elements are small.
  constexpr bool kGates = sizeof(typename Step::Summary) > 2 * sizeof(float);
  constexpr double kFoldWorth = !kGates ? 1 : sizeof(T) == sizeof(float) ? 0.8 : 0.4;
  static const auto kernels = [&] {
    const auto of = [&](void (*kernel)(Scan<Step, T>), TimeSplit split, double worth) {
      const int steps = stretch_steps<Step, kPack>(split), most_threads = most_scan_threads(split);
      const auto resident = [&](int threads) {
        return launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), threads, 0);
      };
      // A cluster must find room in one group of multiprocessors: not all of it is for it.
      const int threads = most_threads * (split == TimeSplit::spread ? 2 : resident(most_threads));
      return Kernel{
          kernel,  steps, Step::kInputs * steps * kPack * static_cast<int>(sizeof(T)), resident(kFewestThreads),
          threads, worth};
    };
    return std::array<Kernel, 3>{
        of(relay_kernel<Step, T, kPack>, TimeSplit::relay, 0.97),
        of(fold_kernel<Step, T, kPack, TimeSplit::fold>, TimeSplit::fold, kFoldWorth),
        of(fold_kernel<Step, T, kPack, TimeSplit::spread>, TimeSplit::spread, 0.4 * kFoldWorth)};
  }();
  const auto [split, lanes, segments] = plan_scan(scan.rows, scan.steps, kernels, launch.device());
  const Kernel& chosen = kernels[static_cast<size_t>(split)];
  const int span = split == TimeSplit::spread ? kSpan : 1;
  scan.lanes = lanes;
  scan.segments = segments;
  scan.rounds = static_cast<int>(std::max<int64_t>(1, blocks_for(scan.steps, int64_t{segments} * span * chosen.steps)));
  const int summaries = (segments | 1) + (split == TimeSplit::spread ? 2 * kSpan : 0);
  const size_t bytes =
      split == TimeSplit::relay ? sizeof(typename Step::State) : sizeof(typename Step::Summary) * summaries;
  launch.with({kPack * lanes * bytes, span, /*overlaps=*/true}, chosen.kernel,
              static_cast<unsigned>(blocks_for(scan.rows, lanes) * span), static_cast<unsigned>(lanes * segments),
              scan);
}

struct ScanExtents {
  int64_t batch, time, channels;
};

/// Runs a whole scan: `scan` has its rows. `initial` and `final` may be undefined.
template <class Step, class T>
void run_scan(std::string_view op, Scan<Step, T> scan, const ScanExtents& extents, int device, const Tensor& initial,
              Tensor& final) {
  const auto [batch, time, channels] = extents;
  check(time < (1 << 30) && batch * channels < (int64_t{1} << 31), op, ": [batch, time, channel] is ",
        Shape{batch, time, channels}, ", more than a CUDA scan indexes; split the batch");
  const Launch launch(op, device);
  scan.initial = rows_of<const T>(initial);
  scan.final = rows_of<T>(final);
  scan.steps = static_cast<int>(time);
  scan.faults = fault_record(launch.index());
  const auto queue = [&]<int kPack>() {
    scan.packs = static_cast<unsigned>(channels / kPack);
    scan.rows = static_cast<unsigned>(batch) * scan.packs;
    queue_scan<Step, T, kPack>(launch, scan);
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    queue.template operator()<1>();
  } else {
    const auto aligned = [](const auto& rows, int parts) {
      return parts == 1 ? aligned_for<2>(rows.base, rows.batch_step) && rows.time_step % 2 == 0
                        : aligned_for<4>(rows.base, rows.batch_step) && rows.time_step % 4 == 0;
    };
    constexpr int kStateParts = kParts<typename Step::State>;
    bool paired = channels % 2 == 0 && aligned(scan.closing, kStateParts) && aligned(scan.initial, kStateParts) &&
                  aligned(scan.final, kStateParts);
    for (int i = 0; i < Step::kInputs; ++i) paired = paired && aligned(scan.in[i], opens_pair<Step>(true, i) ? 2 : 1);
    for (int o = 0; o < Step::kOutputs; ++o)
      paired = paired && aligned(scan.out[o], opens_pair<Step>(false, o) ? 2 : 1);
    paired ? queue.template operator()<2>() : queue.template operator()<1>();
  }
}

/// The same with the extents and the device of its real states.
template <class Step, class T>
void run_scan(std::string_view op, const Scan<Step, T>& scan, const Tensor& states, const Tensor& initial,
              Tensor& final) {
  run_scan(op, scan, {states.size(0), states.size(1), states.size(2)}, states.device().index, initial, final);
}

}  // namespace monoid::cuda

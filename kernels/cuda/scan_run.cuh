#pragma once

#include <algorithm>
#include <array>
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

/// How a scan is laid over the GPU.
struct ScanPlan {
  TimeSplit split;
  int lanes, segments;
};

/// What a kernel of each TimeSplit is launched with.
template <class Step, class T>
struct ScanKernel {
  void (*kernel)(Scan<Step, T>);
  int steps;             // of a stretch
  int resident_threads;  // that one multiprocessor holds
};

/// Of the layouts whose blocks are all on the GPU at once, the one that is best at: as much to do for every
/// multiprocessor, two blocks each, so that one computes while the other waits, rows of whole cache lines, and enough
/// threads that their loads cover the latency of memory. A relay needs two chains a multiprocessor to keep up; folds
/// cost arithmetic, and between blocks the barrier of a cluster. Where the channels are more than all of these, a
/// thread has one for all of time.
template <class Kernels>
ScanPlan plan_scan(int64_t rows, int64_t steps, const Kernels& kernels, const DeviceLimits& device) {
  constexpr int kNarrowest = 8, kFewestThreads = 128, kLongestRelay = 8;
  constexpr double kCost[] = {1, 0.85, 0.5};
  const int64_t multiprocessors = device.multiprocessors;
  ScanPlan best{TimeSplit::relay, 128, 1};
  double best_score = 0;
  const auto consider = [&](TimeSplit split, int lanes, int segments) {
    const bool relay = split == TimeSplit::relay, spread = split == TimeSplit::spread;
    const auto& kernel = kernels[static_cast<size_t>(split)];
    const int64_t span = spread ? kSpan : 1, threads = lanes * segments, tile = segments * span * kernel.steps;
    const int64_t blocks = blocks_for(rows, lanes) * span, most = blocks_for(blocks, multiprocessors);
    if (threads < kFewestThreads || threads > most_scan_threads(split) || most * threads > kernel.resident_threads)
      return;
    if (relay ? lanes < kWarp || segments > kLongestRelay : segments < 2) return;
    if (segments * span > 1 && (spread ? 2 * tile > steps : tile >= 2 * steps)) return;
    const double filled = static_cast<double>(multiprocessors);
    const double balance = static_cast<double>(blocks) / (static_cast<double>(most) * filled);
    const double supply = static_cast<double>(blocks * threads) / (0.6 * kernel.resident_threads * filled);
    const double chains = relay ? static_cast<double>(rows) / (2 * kWarp * filled) : 1;
    const double width = lanes >= kWarp ? 1 : lanes == kWarp / 2 ? 0.92 : 0.75;
    const double score = balance * std::min(1.0, supply) * std::min(1.0, chains) * width * (most > 1 ? 1 : 0.9) *
                         kCost[static_cast<size_t>(split)];
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
  static const auto kernels = [&] {
    const auto of = [&](void (*kernel)(Scan<Step, T>), TimeSplit split) {
      constexpr int kProbe = 128;
      const int blocks = launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), kProbe, 0);
      return Kernel{kernel, stretch_steps<Step, kPack>(split),
                    split == TimeSplit::spread ? 2 * kProbe : blocks * kProbe};
    };
    return std::array<Kernel, 3>{of(relay_kernel<Step, T, kPack>, TimeSplit::relay),
                                 of(fold_kernel<Step, T, kPack, TimeSplit::fold>, TimeSplit::fold),
                                 of(fold_kernel<Step, T, kPack, TimeSplit::spread>, TimeSplit::spread)};
  }();
  const auto [split, lanes, segments] = plan_scan(scan.rows, scan.steps, kernels, launch.device());
  const auto [kernel, steps, resident] = kernels[static_cast<size_t>(split)];
  const int span = split == TimeSplit::spread ? kSpan : 1;
  scan.lanes = lanes;
  scan.segments = segments;
  scan.rounds = static_cast<int>(std::max<int64_t>(1, blocks_for(scan.steps, int64_t{segments} * span * steps)));
  const int summaries = (segments | 1) + (split == TimeSplit::spread ? 2 * kSpan : 0);
  const size_t values = split == TimeSplit::relay ? 1 : sizeof(typename Step::Summary) / sizeof(float) * summaries;
  launch.in_clusters(kernel, span, static_cast<unsigned>(blocks_for(scan.rows, lanes) * span),
                     static_cast<unsigned>(lanes * segments), sizeof(float) * kPack * lanes * values, scan);
}

/// Runs a whole scan: `scan` has its rows, `states` the extents. `initial` and `final` may be undefined.
template <class Step, class T>
void run_scan(std::string_view op, Scan<Step, T> scan, const Tensor& states, const Tensor& initial, Tensor& final) {
  const int64_t batch = states.size(0), time = states.size(1), channels = states.size(2);
  check(time < (1 << 30) && batch * channels < (int64_t{1} << 31), op, ": [batch, time, channel] is ", states.shape(),
        ", more than a CUDA scan indexes; split the batch");
  const Launch launch(op, states);
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
    const auto pairs = [](const auto& rows) {
      return aligned_for<2>(rows.base, rows.batch_step) && rows.time_step % 2 == 0;
    };
    const bool paired = channels % 2 == 0 && std::ranges::all_of(scan.in, pairs) &&
                        std::ranges::all_of(scan.out, pairs) && pairs(scan.closing) && pairs(scan.initial) &&
                        pairs(scan.final);
    paired ? queue.template operator()<2>() : queue.template operator()<1>();
  }
}

}  // namespace monoid::cuda

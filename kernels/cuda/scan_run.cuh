#pragma once

#include <algorithm>
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
  return {tensor.template data<std::remove_const_t<T>>() + start * stride + channel, tensor.strides()[0],
          forward ? stride : -stride};
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
  int lanes, segments;
  bool spread;
};

/// Of the layouts whose blocks are all on the GPU at once, the one that is best at: as much to do for every
/// multiprocessor, rows of whole cache lines, and enough threads that their loads cover the latency of memory. Where
/// the channels are more than that, a thread has one for all of time.
inline ScanPlan plan_scan(int64_t rows, int64_t steps, int stretch, const DeviceLimits& device, int resident_threads) {
  constexpr int kNarrowest = 8;
  const int64_t multiprocessors = device.multiprocessors;
  const double threads_wanted = 0.6 * resident_threads * static_cast<double>(multiprocessors);
  ScanPlan best{128, 1, false};
  double best_score = 0;
  const auto consider = [&](int lanes, int segments, bool spread) {
    const int64_t span = spread ? kSpan : 1, threads = lanes * segments;
    const int64_t blocks = blocks_for(rows, lanes) * span, most = blocks_for(blocks, multiprocessors);
    const bool useful = segments * span == 1 || segments * span * stretch < 2 * steps;
    if (threads < 128 || threads > kMostScanThreads || most * threads > resident_threads || !useful) return;
    const double balance = static_cast<double>(blocks) / static_cast<double>(most * multiprocessors);
    const double supply = std::min(1.0, static_cast<double>(blocks * threads) / threads_wanted);
    const double width = lanes >= kWarp ? 1 : lanes == kWarp / 2 ? 0.9 : 0.75;
    const double score = balance * supply * width * (spread ? 0.8 : 1);
    if (score > best_score) best_score = score, best = {lanes, segments, spread};
  };
  for (int lanes = 128; lanes >= kNarrowest; lanes /= 2) {
    for (int segments = 1; segments <= kMostScanThreads / lanes; segments *= 2) {
      consider(lanes, segments, false);
      if (segments > 1 && device.major >= 9) consider(lanes, segments, true);
    }
  }
  return best;
}

template <class Step, class T, int kPack, int kSteps, bool kSpread>
void queue_kernel(const Launch& launch, const Scan<Step, T>& scan) {
  const int span = kSpread ? kSpan : 1;
  const int64_t slots = scan.segments == 1 ? 0 : (scan.segments | 1) + (kSpread ? 2 : 0);
  launch.in_clusters(scan_kernel<Step, T, kPack, kSteps, kSpread>, span,
                     static_cast<unsigned>(blocks_for(scan.rows, scan.lanes) * span),
                     static_cast<unsigned>(scan.lanes * scan.segments),
                     sizeof(typename Step::Summary) * static_cast<size_t>(kPack * scan.lanes * slots), scan);
}

template <class Step, class T, int kPack>
void queue_scan(const Launch& launch, Scan<Step, T> scan) {
  constexpr int kSteps = Step::kInputs * kPack <= 4 ? 8 : 4, kProbe = 128;
  static const int resident =
      kProbe * launch.blocks_per_multiprocessor(
                   reinterpret_cast<const void*>(scan_kernel<Step, T, kPack, kSteps, false>), kProbe, 0);
  const auto [lanes, segments, spread] = plan_scan(scan.rows, scan.steps, kSteps, launch.device(), resident);
  scan.lanes = lanes;
  scan.segments = segments;
  const int64_t round = int64_t{kSteps} * segments * (spread ? kSpan : 1);
  scan.rounds = static_cast<int>(std::max<int64_t>(1, blocks_for(scan.steps, round)));
  spread ? queue_kernel<Step, T, kPack, kSteps, true>(launch, scan)
         : queue_kernel<Step, T, kPack, kSteps, false>(launch, scan);
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

#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/scan.h"

// One engine for every first-order scan, the same idea as kernels/cpu/scan_rows.h. A block owns `lanes` packs of
// adjacent channels and meets time tile by tile; a tile is `segments` stretches of kSteps steps, one stretch a thread:
//
//   load       the inputs of a stretch into registers, a tile ahead of their use: these bytes in flight are the speed
//   element    what each step does, computed once
//   summarise  the stretch becomes one element of the step's monoid
//   fold       the block's first threads take the state across the stretches, in order: what enters each of them
//   replay     each stretch from the state that enters it; outputs are stored
//
// With one segment nothing is summarised: a thread walks its channels through all of time, and steps taken one at a
// time give the same bits. With several, the state crosses from tile to tile in a register. Where there are too few
// channels to fill the GPU (`look_back`), blocks take tiles of any channels in order of a ticket, and the entering
// state comes from the tiles before: each publishes its summary, then the state it ends with. That state is always the
// summary applied to the state before, so it has the same bits whichever of them a later tile finds first.
//
// A step is a struct of static functions of one channel, in f32:
//   Summary                        the monoid that composes its elements (kernels/monoid.h)
//   kInputs, kOutputs, kEmpty      rows read and written a step; the state that stands for none
//   kClosing, kClosed              the input that comes from another place at the last step, or -1; the value where
//                                  that place is absent
//   Element element(in)            what one step does; combine(Summary, element.link()) extends a run by it
//   float advance(element, state, out)
//   void open(in)                  optional: makes the first step ignore the state, where none enters
//   kNeverNegative                 whether a negative initial state is a fault

namespace monoid::cuda {

inline constexpr int kMostScanThreads = 512;

/// Rows of channels by batch and step; no base: not there.
template <class T>
struct Rows {
  T* base = nullptr;
  int64_t batch_step = 0, time_step = 0;
};

/// What tiles tell each other across blocks.
template <class Summary>
struct LookBack {
  unsigned* ticket;
  int* flags;  // a tile and column: 0 nothing yet, 1 its summary, 2 the state it ends with
  Summary* summaries;
  float* states;
  unsigned columns;  // blocks' worth of channels
};

template <class Step, class T>
struct Scan {
  Rows<const T> in[Step::kInputs] = {};
  Rows<T> out[Step::kOutputs] = {};
  Rows<const T> closing = {}, initial = {};
  Rows<T> final = {};
  int steps = 0;
  unsigned packs = 0, rows = 0;            // packs in a row of channels, and in all rows
  int lanes = 0, segments = 0, tiles = 0;  // lanes is a power of 2
  FaultRecord* faults = nullptr;
  LookBack<typename Step::Summary> look_back = {};
};

/// Which channels a thread works on.
struct Lane {
  int batch, channel;
  bool active;
};

__device__ __forceinline__ int load_acquire(const int* from) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(int* to, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

/// What another block wrote: not from this multiprocessor's cache.
template <class Summary>
__device__ __forceinline__ Summary fetch(const Summary* from) {
  constexpr int kWords = sizeof(Summary) / sizeof(float);
  struct Words {
    float word[kWords];
  } words;
#pragma unroll
  for (int i = 0; i < kWords; ++i) words.word[i] = __ldcg(reinterpret_cast<const float*>(from) + i);
  return __builtin_bit_cast(Summary, words);
}

/// A tile of one thread: kSteps steps of kPack channels.
template <class Step, class T, int kPack, int kSteps>
struct Stretch {
  using Summary = typename Step::Summary;
  using Element = typename Step::Element;

  Pack<T, kPack> raw[kSteps][Step::kInputs];
  Element elements[kSteps][kPack];

  __device__ static Pack<T, kPack> filled(float value) {
    Pack<T, kPack> pack;
#pragma unroll
    for (int v = 0; v < kPack; ++v) pack.lanes[v] = narrow<T>(value);
    return pack;
  }
  template <class Row>
  __device__ static auto* address(const Rows<Row>& rows, const Lane& lane, int step) {
    return rows.base + (lane.batch * rows.batch_step + step * rows.time_step + lane.channel);
  }
  __device__ static Pack<T, kPack> read(const Rows<const T>& rows, const Lane& lane, int step, float absent) {
    if (!rows.base) return filled(absent);
    return *reinterpret_cast<const Pack<T, kPack>*>(address(rows, lane, step));
  }

  __device__ void load(const Scan<Step, T>& scan, const Lane& lane, int step) {
#pragma unroll
    for (int i = 0; i < Step::kInputs; ++i) {
      const auto& rows = scan.in[i];
      const T* from = address(rows, lane, step);
#pragma unroll
      for (int u = 0; u < kSteps; ++u, from += rows.time_step) {
        if (!lane.active || step + u >= scan.steps) continue;
        if (i == Step::kClosing && step + u == scan.steps - 1) {
          raw[u][i] = read(scan.closing, lane, 0, Step::kClosed);
        } else {
          raw[u][i] = rows.base ? *reinterpret_cast<const Pack<T, kPack>*>(from) : filled(0);
        }
      }
    }
  }

  __device__ void prepare(const Scan<Step, T>& scan, int step) {
#pragma unroll
    for (int u = 0; u < kSteps; ++u) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        float in[Step::kInputs];
#pragma unroll
        for (int i = 0; i < Step::kInputs; ++i) in[i] = widen(raw[u][i].lanes[v]);
        if constexpr (requires { Step::open(in); }) {
          if (u == 0 && step == 0 && !scan.initial.base) Step::open(in);
        }
        elements[u][v] = Step::element(in);
      }
    }
  }

  /// Steps past the end count too: no stretch comes after them.
  __device__ void summarise(Summary (&run)[kPack]) const {
#pragma unroll
    for (int v = 0; v < kPack; ++v) {
      run[v] = Summary::identity();
#pragma unroll
      for (int u = 0; u < kSteps; ++u) run[v] = combine(run[v], elements[u][v].link());
    }
  }

  __device__ void replay(const Scan<Step, T>& scan, const Lane& lane, int step, float (&state)[kPack]) const {
    float last[kPack];
#pragma unroll
    for (int v = 0; v < kPack; ++v) last[v] = state[v];
#pragma unroll
    for (int u = 0; u < kSteps; ++u) {
      float out[Step::kOutputs][kPack];
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        float written[Step::kOutputs];
        state[v] = Step::advance(elements[u][v], state[v], written);
#pragma unroll
        for (int o = 0; o < Step::kOutputs; ++o) out[o][v] = written[o];
      }
      if (!lane.active || step + u >= scan.steps) continue;
#pragma unroll
      for (int v = 0; v < kPack; ++v) last[v] = state[v];
#pragma unroll
      for (int o = 0; o < Step::kOutputs; ++o) store(address(scan.out[o], lane, step + u), out[o]);
    }
    const int end = max(scan.steps, 1) - 1;
    if (lane.active && scan.final.base && step <= end && end < step + kSteps) store(address(scan.final, lane, 0), last);
  }
};

template <class Step, class T, int kPack>
__device__ void enter(const Scan<Step, T>& scan, const Lane& lane, float (&state)[kPack]) {
#pragma unroll
  for (int v = 0; v < kPack; ++v) state[v] = Step::kEmpty;
  if (!lane.active || !scan.initial.base) return;
  const int64_t offset = lane.batch * scan.initial.batch_step + lane.channel;
  load(scan.initial.base + offset, state);
  if constexpr (Step::kNeverNegative) {
#pragma unroll
    for (int v = 0; v < kPack; ++v) {
      const int64_t channels = static_cast<int64_t>(scan.packs) * kPack;
      if (state[v] < 0)
        report(scan.faults, Fault::negative_state, lane.batch * channels + lane.channel + v, state[v], 0);
    }
  }
}

/// The state that enters a tile, for a whole warp of lanes. Tells later tiles this one's summary, and its last state.
template <class Step, class T, int kPack>
__device__ void look_back(const Scan<Step, T>& scan, const Lane& lane, int tile, unsigned column,
                          const typename Step::Summary (&whole)[kPack], float (&state)[kPack]) {
  const auto& shared = scan.look_back;
  const int warp_lane = static_cast<int>(threadIdx.x);
  const auto flag_of = [&](int of) { return shared.flags + (static_cast<int64_t>(of) * shared.columns + column); };
  const auto place_of = [&](int of, int v) {
    return ((static_cast<int64_t>(of) * shared.columns + column) * kPack + v) * kWarp + warp_lane;
  };
  const auto publish = [&](int what) {
    __threadfence();
    __syncwarp();
    if (warp_lane == 0) store_release(flag_of(tile), what);
  };
  if (tile == 0) {
    enter<Step>(scan, lane, state);
  } else {
#pragma unroll
    for (int v = 0; v < kPack; ++v) shared.summaries[place_of(tile, v)] = whole[v];
    publish(1);
    int near;  // tiles between this one and the nearest whose last state is known
    while (true) {
      const int seen = warp_lane < tile ? load_acquire(flag_of(tile - 1 - warp_lane)) : 0;
      const unsigned known = __ballot_sync(kAllLanes, seen == 2), told = __ballot_sync(kAllLanes, seen != 0);
      near = __ffs(static_cast<int>(known)) - 1;
      if (near >= 0 && (~told & ((1u << near) - 1)) == 0) break;
      __nanosleep(32);
    }
    __syncwarp();
#pragma unroll
    for (int v = 0; v < kPack; ++v) state[v] = fetch(shared.states + place_of(tile - 1 - near, v));
#pragma unroll 4
    for (int of = tile - near; of < tile; ++of) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) state[v] = fetch(shared.summaries + place_of(of, v)).advance(state[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < kPack; ++v) shared.states[place_of(tile, v)] = whole[v].advance(state[v]);
  publish(2);
}

template <class Step, class T, int kPack, int kSteps, bool kLookBack>
__global__ void __launch_bounds__(kMostScanThreads) scan_kernel(const __grid_constant__ Scan<Step, T> scan) {
  using Summary = typename Step::Summary;
  extern __shared__ float shared_memory[];
  __shared__ unsigned shared_ticket;
  Summary* const slots = reinterpret_cast<Summary*>(shared_memory);
  const int thread = static_cast<int>(threadIdx.x), segments = scan.segments;
  const int own = thread & (scan.lanes - 1), segment = thread / scan.lanes;
  // A lane's summaries lie side by side, an odd number of slots from the next lane's: no bank conflicts.
  const auto slot_of = [&](int v) { return slots + (v * scan.lanes + own) * (segments | 1); };
  const auto lane_of = [&](unsigned column) {
    const unsigned row = column * static_cast<unsigned>(scan.lanes) + static_cast<unsigned>(own);
    return Lane{static_cast<int>(row / scan.packs), static_cast<int>(row % scan.packs) * kPack, row < scan.rows};
  };
  const auto step_of = [&](int tile) { return (tile * segments + segment) * kSteps; };

  unsigned column = blockIdx.x, upcoming = 0;
  int tile = 0;
  const auto take = [&](unsigned ticket) {
    column = ticket % scan.look_back.columns;
    tile = static_cast<int>(ticket / scan.look_back.columns);
  };
  if constexpr (kLookBack) {
    if (thread == 0) {
      shared_ticket = atomicAdd(scan.look_back.ticket, 1);
      upcoming = atomicAdd(scan.look_back.ticket, 1);
    }
    __syncthreads();
    take(shared_ticket);
    __syncthreads();
    if (tile >= scan.tiles) return;
  }
  Lane lane = lane_of(column);
  Stretch<Step, T, kPack, kSteps> stretch;
  stretch.load(scan, lane, step_of(tile));
  float state[kPack];
  if (!kLookBack && segment == 0) enter<Step>(scan, lane, state);

  while (true) {
    const int step = step_of(tile), this_tile = tile;
    const unsigned this_column = column;
    const Lane here = lane;
    stretch.prepare(scan, step);
    if (segments > 1) {
      Summary run[kPack];
      stretch.summarise(run);
#pragma unroll
      for (int v = 0; v < kPack; ++v) slot_of(v)[segment] = run[v];
      if constexpr (kLookBack) {
        if (thread == 0) {
          shared_ticket = upcoming;
          upcoming = atomicAdd(scan.look_back.ticket, 1);
        }
      }
      __syncthreads();
    }
    if constexpr (kLookBack) {
      take(shared_ticket);
      lane = lane_of(column);
    } else {
      ++tile;
    }
    const bool more = tile < scan.tiles;
    if (more) stretch.load(scan, lane, step_of(tile));
    if (segments > 1) {
      if (segment == 0) {
        if constexpr (kLookBack) {
          Summary whole[kPack];
#pragma unroll
          for (int v = 0; v < kPack; ++v) {
            whole[v] = slot_of(v)[0];
            for (int s = 1; s < segments; ++s) whole[v] = combine(whole[v], slot_of(v)[s]);
          }
          look_back<Step>(scan, here, this_tile, this_column, whole, state);
        }
#pragma unroll
        for (int v = 0; v < kPack; ++v) {
          Summary* const slot = slot_of(v);
#pragma unroll 4
          for (int s = 0; s < segments; ++s) {
            const Summary run = slot[s];
            *reinterpret_cast<float*>(slot + s) = state[v];  // what enters the segment
            state[v] = run.advance(state[v]);
          }
        }
      }
      __syncthreads();
      float entering[kPack];
#pragma unroll
      for (int v = 0; v < kPack; ++v) entering[v] = *reinterpret_cast<const float*>(slot_of(v) + segment);
      stretch.replay(scan, here, step, entering);
    } else {
      stretch.replay(scan, here, step, state);
    }
    if (!more) return;
  }
}

// ---------------------------------------------------------------------------------------------------------- the host

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
  bool look_back;
};

/// Of the layouts whose blocks are all on the GPU at once, the one that is best at: as much to do for every
/// multiprocessor, rows of whole cache lines, and enough threads that their loads cover the latency of memory. Where
/// none is any good, blocks share the time of a channel; where there are channels galore, a thread has all of it.
inline ScanPlan plan_scan(int64_t rows, int64_t steps, int stretch, int multiprocessors, int resident_threads) {
  constexpr int kNarrowest = 8, kLookBackSegments = 16;
  const double threads_wanted = 0.6 * resident_threads;
  ScanPlan best{128, 1, false};
  double best_score = 0;
  for (int lanes = 128; lanes >= kNarrowest; lanes /= 2) {
    const int64_t blocks = blocks_for(rows, lanes), most = blocks_for(blocks, multiprocessors);
    const double balance = static_cast<double>(blocks) / static_cast<double>(most * multiprocessors);
    const double width = lanes >= kWarp ? 1 : lanes == kWarp / 2 ? 0.9 : 0.75;
    for (int segments = 1; segments == 1 || segments * stretch < 2 * steps; segments *= 2) {
      const int threads = lanes * segments;
      if (threads > kMostScanThreads || most * threads > resident_threads) break;
      if (threads < 128) continue;
      const double supply = static_cast<double>(blocks * threads) / (multiprocessors * threads_wanted);
      const double score = balance * width * std::min(1.0, supply);
      if (score > best_score) best_score = score, best = {lanes, segments, false};
    }
  }
  constexpr double kPoor = 0.35;
  if (best_score > 0 && best_score < kPoor && steps >= 4 * kLookBackSegments * stretch)
    return {kWarp, kLookBackSegments, true};
  return best;
}

template <class Step, class T, int kPack>
void queue_scan(const Launch& launch, Scan<Step, T> scan, Device device) {
  using Summary = typename Step::Summary;
  constexpr int kSteps = Step::kInputs * kPack <= 4 ? 8 : 4;
  constexpr int kProbe = 128;
  static const int resident = kProbe * launch.blocks_per_multiprocessor(
                                           reinterpret_cast<const void*>(scan_kernel<Step, T, kPack, kSteps, false>),
                                           kProbe, 0);
  const auto [lanes, segments, look_back] =
      plan_scan(scan.rows, scan.steps, kSteps, launch.device().multiprocessors, resident);
  const int64_t columns = blocks_for(scan.rows, lanes);
  scan.lanes = lanes;
  scan.segments = segments;
  scan.tiles = static_cast<int>(std::max<int64_t>(1, blocks_for(scan.steps, segments * kSteps)));
  const dim3 block(static_cast<unsigned>(lanes * segments));
  const size_t shared = segments == 1 ? 0 : sizeof(Summary) * static_cast<size_t>(kPack * lanes * (segments | 1));
  if (!look_back) {
    launch.with_shared(scan_kernel<Step, T, kPack, kSteps, false>, dim3(static_cast<unsigned>(columns)), block, shared,
                       scan);
    return;
  }
  const auto kernel = scan_kernel<Step, T, kPack, kSteps, true>;
  const int64_t places = columns * scan.tiles, values = places * kPack * kWarp;
  Tensor flags = Tensor::zeros({places + 1}, DType::i32, device);
  Tensor states = Tensor::empty({values}, DType::f32, device);
  Tensor summaries = Tensor::empty({values, static_cast<int64_t>(sizeof(Summary) / sizeof(float))}, DType::f32, device);
  scan.look_back = {reinterpret_cast<unsigned*>(flags.data<int32_t>()), flags.data<int32_t>() + 1,
                    reinterpret_cast<Summary*>(summaries.data<float>()), states.data<float>(),
                    static_cast<unsigned>(columns)};
  const int together =
      launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), static_cast<int>(block.x), shared);
  const int64_t blocks = std::min<int64_t>(places, int64_t{together} * launch.device().multiprocessors);
  launch.with_shared(kernel, dim3(static_cast<unsigned>(blocks)), block, shared, scan);
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
    queue_scan<Step, T, kPack>(launch, scan, states.device());
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

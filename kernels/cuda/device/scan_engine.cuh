#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "monoid/core/dtype.h"
#include "monoid/kernels/cuda/device/cluster.cuh"
#include "monoid/kernels/cuda/device/mailbox.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/faults.h"

// One engine for every first-order scan, the same idea as kernels/cpu/scan_rows.h. A block owns `lanes` packs of
// adjacent channels and meets time tile by tile; a tile is `segments` stretches of kSteps steps, one stretch a thread:
//
//   load      the inputs of a stretch into registers, a tile ahead of their use: these bytes in flight are the speed
//   prepare   what each step does, an element: all that can be known before the state
//   replay    the stretch from the state that enters it; outputs are stored
//
// How the state crosses from stretch to stretch depends on how many channels there are to share the GPU:
//
//   relay     many: it is handed from segment to segment, while others load and prepare; the same bits as one step at
//             a time. One segment is the plain walk of a thread along its channels.
//   fold      few: a stretch becomes one element of the step's monoid, its summary, and a thread a channel folds the
//             state through these, in order, so that all can replay at once
//   spread    fewer still: the blocks of a cluster take a tile each of the same channels, and fold through the
//             summaries of tiles first
//
// The layout follows from shape and GPU alone, so results have the same bits every time.
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

enum class TimeSplit { relay, fold, spread };

inline constexpr int kSpan = 8;  // blocks that share the time of their channels, in `spread`

/// Rows of channels by batch and step; no base: not there.
template <class T>
struct Rows {
  T* base = nullptr;
  int64_t batch_step = 0;
  int time_step = 0;
};

template <class Step, class T>
struct Scan {
  Rows<const T> in[Step::kInputs] = {};
  Rows<T> out[Step::kOutputs] = {};
  Rows<const T> closing = {}, initial = {};
  Rows<T> final = {};
  int steps = 0;
  unsigned packs = 0, rows = 0;             // packs in a row of channels, and in all rows
  int lanes = 0, segments = 0, rounds = 0;  // lanes is a power of 2
  FaultRecord* faults = nullptr;
};

/// Which channels a thread works on, and its place in the block.
struct Lane {
  int batch, channel;
  bool active;
  int own, segment;

  template <class Step, class T>
  __device__ Lane(const Scan<Step, T>& scan, unsigned block, int pack)
      : own(static_cast<int>(threadIdx.x) & (scan.lanes - 1)), segment(static_cast<int>(threadIdx.x) / scan.lanes) {
    const unsigned row = block * static_cast<unsigned>(scan.lanes) + static_cast<unsigned>(own);
    batch = static_cast<int>(row / scan.packs);
    channel = static_cast<int>(row % scan.packs) * pack;
    active = row < scan.rows;
  }
};

/// kPack adjacent channels as memory holds them. One word: taken apart into elements, a load would be waited for where
/// it is issued.
template <class T, int kPack>
struct Word;
template <>
struct Word<float, 1> {
  float bits;
  __device__ float lane(int) const { return bits; }
  __device__ static Word of(const float (&x)[1]) { return {x[0]}; }
};
template <>
struct Word<bfloat16, 1> {
  uint16_t bits;
  __device__ float lane(int) const { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
  __device__ static Word of(const float (&x)[1]) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x[0]))}; }
};
template <>
struct Word<bfloat16, 2> {
  uint32_t bits;
  __device__ float lane(int v) const { return __uint_as_float(v == 0 ? bits << 16 : bits & 0xffff0000u); }
  __device__ static Word of(const float (&x)[2]) {
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(x[1]), "f"(x[0]));
    return {both};
  }
};

/// A tile of one thread: kSteps steps of kPack channels.
template <class Step, class T, int kPack, int kSteps>
struct Stretch {
  using Summary = typename Step::Summary;
  using Element = typename Step::Element;
  using Raw = Word<T, kPack>;

  Raw raw[kSteps][Step::kInputs];
  Element elements[kSteps][kPack];

  template <class Row>
  __device__ static Row* address(const Rows<Row>& rows, const Lane& lane, int step) {
    return rows.base + (lane.batch * rows.batch_step + static_cast<int64_t>(step) * rows.time_step + lane.channel);
  }
  /// Whether all steps are there, and another one after them: no step needs a look then.
  __device__ static bool is_inner(const Scan<Step, T>& scan, const Lane& lane, int step) {
    return lane.active && step + kSteps < scan.steps;
  }

  __device__ void load(const Scan<Step, T>& scan, const Lane& lane, int step) {
    if (is_inner(scan, lane, step)) {
      load_steps<true>(scan, lane, step);
    } else if (lane.active) {
      load_steps<false>(scan, lane, step);
    }
  }
  template <bool kInner>
  __device__ void load_steps(const Scan<Step, T>& scan, const Lane& lane, int step) {
    // Absent rows have no strides either: they are this one value.
    __device__ static const Raw zero = {};
#pragma unroll
    for (int i = 0; i < Step::kInputs; ++i) {
      const Rows<const T>& rows = scan.in[i];
      const T* from = rows.base ? address(rows, lane, step) : reinterpret_cast<const T*>(&zero);
#pragma unroll
      for (int u = 0; u < kSteps; ++u) {
        if (!kInner && step + u >= scan.steps) break;
        const bool closes = !kInner && i == Step::kClosing && step + u == scan.steps - 1;
        raw[u][i] = closes ? closing(scan, lane) : *reinterpret_cast<const Raw*>(from + int64_t{rows.time_step} * u);
      }
    }
  }
  __device__ static Raw closing(const Scan<Step, T>& scan, const Lane& lane) {
    if (scan.closing.base) return *reinterpret_cast<const Raw*>(address(scan.closing, lane, 0));
    float closed[kPack];
#pragma unroll
    for (int v = 0; v < kPack; ++v) closed[v] = Step::kClosed;
    return Raw::of(closed);
  }
  __device__ static void write(T* to, const float (&values)[kPack]) { *reinterpret_cast<Raw*>(to) = Raw::of(values); }

  __device__ void prepare(const Scan<Step, T>& scan, int step) {
#pragma unroll
    for (int u = 0; u < kSteps; ++u) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        float in[Step::kInputs];
#pragma unroll
        for (int i = 0; i < Step::kInputs; ++i) in[i] = raw[u][i].lane(v);
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
    if (is_inner(scan, lane, step)) {
      replay_steps<true>(scan, lane, step, state);
    } else if (lane.active) {
      replay_steps<false>(scan, lane, step, state);
    }
  }
  template <bool kInner>
  __device__ void replay_steps(const Scan<Step, T>& scan, const Lane& lane, int step, float (&state)[kPack]) const {
    T* to[Step::kOutputs];
#pragma unroll
    for (int o = 0; o < Step::kOutputs; ++o) to[o] = address(scan.out[o], lane, step);
#pragma unroll
    for (int u = 0; u < kSteps; ++u) {
      if (!kInner && step + u >= scan.steps) break;
      float out[Step::kOutputs][kPack];
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        float written[Step::kOutputs];
        state[v] = Step::advance(elements[u][v], state[v], written);
#pragma unroll
        for (int o = 0; o < Step::kOutputs; ++o) out[o][v] = written[o];
      }
#pragma unroll
      for (int o = 0; o < Step::kOutputs; ++o) write(to[o] + int64_t{scan.out[o].time_step} * u, out[o]);
    }
    const int end = max(scan.steps, 1) - 1;
    if (!kInner && scan.final.base && step <= end && end < step + kSteps) write(address(scan.final, lane, 0), state);
  }
};

/// The states that enter a lane; `checks`: reports negative ones where they are a fault.
template <class Step, class T, int kPack>
__device__ void enter(const Scan<Step, T>& scan, const Lane& lane, bool checks, float (&state)[kPack]) {
#pragma unroll
  for (int v = 0; v < kPack; ++v) state[v] = Step::kEmpty;
  if (!lane.active || !scan.initial.base) return;
  const auto word = *reinterpret_cast<const Word<T, kPack>*>(scan.initial.base +
                                                             (lane.batch * scan.initial.batch_step + lane.channel));
#pragma unroll
  for (int v = 0; v < kPack; ++v) {
    state[v] = word.lane(v);
    const int64_t channels = static_cast<int64_t>(scan.packs) * kPack;
    if (Step::kNeverNegative && checks && state[v] < 0)
      report(scan.faults, Fault::negative_state, lane.batch * channels + lane.channel + v, state[v], 0);
  }
}

/// Registers of a step of a stretch: what is loaded ahead, and the element.
template <class Step, int kPack>
constexpr int step_registers() {
  return Step::kInputs + kPack * static_cast<int>(sizeof(typename Step::Element) / sizeof(float));
}

/// The longest stretch that leaves room for enough threads. Blocks that share the time are few: they have more.
template <class Step, int kPack>
constexpr int stretch_steps(TimeSplit split) {
  constexpr int kNeeded = step_registers<Step, kPack>();
  if (split == TimeSplit::spread) return kNeeded <= 6 ? 16 : 8;
  return kNeeded <= 12 ? 8 : 4;
}

constexpr int most_scan_threads(TimeSplit split) { return split == TimeSplit::spread ? 128 : 256; }

/// How many whole blocks a multiprocessor is to hold: by registers, of which folds need some more. Clusters would not
/// find room on all multiprocessors if these held no more than the two blocks that they are to.
template <class Step, int kPack>
constexpr int resident_blocks(TimeSplit split) {
  const int needed = stretch_steps<Step, kPack>(split) * step_registers<Step, kPack>();
  const int blocks = needed <= 32 ? 4 : needed <= 48 ? 3 : 2;
  if (split == TimeSplit::spread) return 3;
  return split == TimeSplit::fold && blocks > 2 ? blocks - 1 : blocks;
}

// -------------------------------------------------------------------------------------------------------------- relay

template <class Step, class T, int kPack>
__global__ void __launch_bounds__(most_scan_threads(TimeSplit::relay), resident_blocks<Step, kPack>(TimeSplit::relay))
    relay_kernel(const __grid_constant__ Scan<Step, T> scan) {
  // A warp waits for the one that has the same lanes in the segment before.
  extern __shared__ float baton[];
  __shared__ Mailbox mailboxes[most_scan_threads(TimeSplit::relay) / kWarp];
  constexpr int kSteps = stretch_steps<Step, kPack>(TimeSplit::relay);
  const Lane lane(scan, blockIdx.x, kPack);
  const int segments = scan.segments, last = scan.rounds * segments - 1;
  const unsigned warp = threadIdx.x / kWarp;
  Mailbox &own = mailboxes[warp], &next = mailboxes[(warp + scan.lanes / kWarp) % (blockDim.x / kWarp)];
  if (threadIdx.x % kWarp == 0) own.open();
  __syncthreads();
  wait_for_previous();
  Stretch<Step, T, kPack, kSteps> stretch;
  stretch.load(scan, lane, lane.segment * kSteps);
  float state[kPack];
  enter<Step>(scan, lane, lane.segment == 0, state);
  uint32_t parity = 0;
  for (int turn = lane.segment; turn <= last; turn += segments) {
    stretch.prepare(scan, turn * kSteps);
    if (turn + segments <= last) stretch.load(scan, lane, (turn + segments) * kSteps);
    if (segments > 1 && turn > 0) {
      own.collect(parity);
      parity ^= 1;
#pragma unroll
      for (int v = 0; v < kPack; ++v) state[v] = baton[v * scan.lanes + lane.own];
    }
    stretch.replay(scan, lane, turn * kSteps, state);
    if (segments > 1 && turn < last) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) baton[v * scan.lanes + lane.own] = state[v];
      next.post();
    }
  }
}

// ----------------------------------------------------------------------------------------------------- fold, spread

/// Gives a summary to every block of the cluster, at the place that `own` has in this one.
template <class Summary>
__device__ __forceinline__ void tell_peers(Summary* own, const Summary& summary) {
  struct Words {
    float word[sizeof(Summary) / sizeof(float)];
  };
  const auto words = __builtin_bit_cast(Words, summary);
  for (int rank = 0; rank < kSpan; ++rank) {
    int i = 0;
#pragma unroll
    for (const float word : words.word) write_peer(reinterpret_cast<float*>(own) + i++, rank, word);
  }
}

/// Visits the summaries of a lane's segments in order; four are read before the first is used.
template <class Summary, class Visit>
__device__ __forceinline__ void for_each_summary(const Summary* slots, int segments, Visit visit) {
  constexpr int kAhead = 4;
  for (int first = 0; first < segments; first += kAhead) {
    Summary runs[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i < segments) runs[i] = slots[first + i];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i < segments) visit(first + i, runs[i]);
  }
}

template <class Step, class T, int kPack, TimeSplit kSplit>
__global__ void __launch_bounds__(most_scan_threads(kSplit), resident_blocks<Step, kPack>(kSplit))
    fold_kernel(const __grid_constant__ Scan<Step, T> scan) {
  using Summary = typename Step::Summary;
  extern __shared__ float shared_memory[];
  wait_for_previous();
  constexpr bool kSpread = kSplit == TimeSplit::spread;
  constexpr int kSteps = stretch_steps<Step, kPack>(kSplit), kBlocks = kSpread ? kSpan : 1;
  const int rank = static_cast<int>(blockIdx.x % kBlocks), lanes = scan.lanes, segments = scan.segments;
  const Lane lane(scan, blockIdx.x / kBlocks, kPack);
  const int segment = lane.segment;
  const auto step_of = [&](int round) { return ((round * kBlocks + rank) * segments + segment) * kSteps; };
  // A lane's summaries lie side by side, an odd number of slots from the next lane's: no bank conflicts. After all of
  // these come those of whole tiles, by block: of this round and, for who is late, of the one before.
  Summary* const slots = reinterpret_cast<Summary*>(shared_memory);
  const auto slot_of = [&](int v) { return slots + (v * lanes + lane.own) * (segments | 1); };
  const auto tile_of = [&](int v, int round, int block) {
    return slots + lanes * (kPack * (segments | 1) + ((round & 1) * kSpan + block) * kPack + v) + lane.own;
  };

  Stretch<Step, T, kPack, kSteps> stretch;
  stretch.load(scan, lane, step_of(0));
  float state[kPack];
  enter<Step>(scan, lane, segment == 0, state);
  // A lane's first threads have a channel each, of which they fold the state.
  const bool folds = segment < kPack;
  Summary* const folded = slot_of(segment % kPack);
  float carry = segment == 0 ? state[0] : state[kPack - 1];
  if constexpr (kSpread) cluster_barrier();  // all are there to be written to
  for (int round = 0; round < scan.rounds; ++round) {
    const int step = step_of(round);
    stretch.prepare(scan, step);
    Summary run[kPack];
    stretch.summarise(run);
#pragma unroll
    for (int v = 0; v < kPack; ++v) slot_of(v)[segment] = run[v];
    __syncthreads();
    if (round + 1 < scan.rounds) stretch.load(scan, lane, step_of(round + 1));
    if constexpr (kSpread) {
      if (folds) {
        Summary tile = Summary::identity();
        for_each_summary(folded, segments, [&](int, const Summary& each) { tile = combine(tile, each); });
        tell_peers(tile_of(segment, round, rank), tile);
      }
      cluster_barrier();
    }
    if (folds) {
      float h = carry;
      if constexpr (kSpread) {
#pragma unroll
        for (int block = 0; block < kSpan; ++block) {
          if (block == rank) h = carry;
          carry = tile_of(segment, round, block)->advance(carry);
        }
      }
      for_each_summary(folded, segments, [&](int s, const Summary& each) {
        *reinterpret_cast<float*>(folded + s) = h;  // what enters the segment
        h = each.advance(h);
      });
      if constexpr (!kSpread) carry = h;
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kPack; ++v) state[v] = *reinterpret_cast<const float*>(slot_of(v) + segment);
    stretch.replay(scan, lane, step, state);
  }
}

}  // namespace monoid::cuda

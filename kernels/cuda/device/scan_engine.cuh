#pragma once

#include <cstdint>

#include "monoid/kernels/cuda/device/cluster.cuh"
#include "monoid/kernels/cuda/device/mailbox.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/scan_stretch.cuh"

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
//   State                          float, or Complex<float>
//   Summary                        the monoid that composes its elements (kernels/monoid.h)
//   kInputs, kOutputs, kEmpty      rows read and written a step; the state that stands for none
//   kClosing, kClosed              the input that comes from another place at the last step, or -1; the value where
//                                  that place is absent
//   Element element(in)            what one step does; combine(Summary, element.link()) extends a run by it
//   State advance(element, state, out)
//   void open(in)                  optional: makes the first step ignore the state, where none enters
//   kNeverNegative                 whether a negative initial state is a fault
//   State follow(element, state)   optional: `advance` without the outputs. A relay then hands the state on before it
//                                  works these out: the chain of states is what a relay of many outputs waits for
//   kPairedInputs, kPairedOutputs  optional, bits: value i and the next are the parts of a row of pairs
//   Options                        optional: what `element` takes besides, the same for all steps
//   kKeeps                         optional: states that enter groups of steps are kept (kernels/recall.h)
//   kRecalls                       optional: an adjoint that is given the state before each step,
//                                  Element element(in, options, before, State& after)

namespace monoid::cuda {

enum class TimeSplit { relay, fold, spread };

inline constexpr int kSpan = 8;  // blocks that share the time of their channels, in `spread`

/// Registers of a step of a stretch: what is loaded ahead, and the element.
template <class Step, int kPack>
constexpr int step_registers() {
  const int recalled = recalls<Step>() ? kParts<typename Step::State> : 0;
  return Step::kInputs + kPack * (static_cast<int>(sizeof(typename Step::Element) / sizeof(float)) + recalled);
}

/// The longest stretch that leaves room for enough threads. Blocks that share the time are few: they have more.
template <class Step, int kPack>
constexpr int stretch_steps(TimeSplit split) {
  constexpr int kNeeded = step_registers<Step, kPack>();
  if (split == TimeSplit::spread) return kNeeded <= 6 ? 16 : kNeeded <= 16 ? 8 : 4;
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
  using State = typename Step::State;
  extern __shared__ float shared_memory[];
  State* const baton = reinterpret_cast<State*>(shared_memory);
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
  typename Step::State state[kPack];
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
    const auto hand_on = [&](const State(&states)[kPack]) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) baton[v * scan.lanes + lane.own] = states[v];
      next.post();
    };
    const bool hands_on = segments > 1 && turn < last;
    if constexpr (follows_early<Step>()) {
      if (hands_on) {
        State ahead[kPack];
        stretch.follow(state, ahead);
        hand_on(ahead);
      }
    }
    stretch.replay(scan, lane, turn * kSteps, state);
    if (!follows_early<Step>() && hands_on) hand_on(state);
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
  using State = typename Step::State;
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
  typename Step::State state[kPack];
  enter<Step>(scan, lane, segment == 0, state);
  // A lane's first threads have a channel each, of which they fold the state.
  const bool folds = segment < kPack;
  Summary* const folded = slot_of(segment % kPack);
  State carry = segment == 0 ? state[0] : state[kPack - 1];
  if constexpr (kSpread) cluster_barrier();  // all are there to be written to
  for (int round = 0; round < scan.rounds; ++round) {
    const int step = step_of(round);
    stretch.prepare(scan, step);
    if (round + 1 < scan.rounds) stretch.load(scan, lane, step_of(round + 1));
    Summary run[kPack];
    stretch.summarise(run);
#pragma unroll
    for (int v = 0; v < kPack; ++v) slot_of(v)[segment] = run[v];
    __syncthreads();
    if constexpr (kSpread) {
      if (folds) {
        Summary tile = Summary::identity();
        for_each_summary(folded, segments, [&](int, const Summary& each) { tile = combine(tile, each); });
        tell_peers(tile_of(segment, round, rank), tile);
      }
      cluster_barrier();
    }
    if (folds) {
      State h = carry;
      if constexpr (kSpread) {
#pragma unroll
        for (int block = 0; block < kSpan; ++block) {
          if (block == rank) h = carry;
          carry = tile_of(segment, round, block)->advance(carry);
        }
      }
      for_each_summary(folded, segments, [&](int s, const Summary& each) {
        *reinterpret_cast<State*>(folded + s) = h;  // what enters the segment
        h = each.advance(h);
      });
      if constexpr (!kSpread) carry = h;
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kPack; ++v) state[v] = *reinterpret_cast<const State*>(slot_of(v) + segment);
    stretch.replay(scan, lane, step, state);
  }
}

}  // namespace monoid::cuda

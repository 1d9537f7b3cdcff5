#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "monoid/core/dtype.h"
#include "monoid/kernels/cuda/device/cluster.cuh"
#include "monoid/kernels/cuda/faults.h"

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
// channels to fill the GPU, the blocks of a cluster take a tile each of the same channels (`kSpread`): each reads the
// summaries of all and takes the state across them, in order. No layout depends on chance, so neither do the bits.
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
inline constexpr int kSpan = 8;  // blocks that share the time of their channels, where they do

/// Rows of channels by batch and step; no base: not there.
template <class T>
struct Rows {
  T* base = nullptr;
  int64_t batch_step = 0, time_step = 0;
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

/// Which channels a thread works on.
struct Lane {
  int batch, channel;
  bool active;
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
    return rows.base + (lane.batch * rows.batch_step + step * rows.time_step + lane.channel);
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
      for (int u = 0; u < kSteps; ++u, from += rows.time_step) {
        if (!kInner && step + u >= scan.steps) break;
        const bool closes = !kInner && i == Step::kClosing && step + u == scan.steps - 1;
        raw[u][i] = closes ? closing(scan, lane) : *reinterpret_cast<const Raw*>(from);
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
      for (int o = 0; o < Step::kOutputs; ++o) {
        write(to[o], out[o]);
        to[o] += scan.out[o].time_step;
      }
    }
    const int end = max(scan.steps, 1) - 1;
    if (!kInner && scan.final.base && step <= end && end < step + kSteps) write(address(scan.final, lane, 0), state);
  }
};

template <class Step, class T, int kPack>
__device__ void enter(const Scan<Step, T>& scan, const Lane& lane, float (&state)[kPack]) {
#pragma unroll
  for (int v = 0; v < kPack; ++v) state[v] = Step::kEmpty;
  if (!lane.active || !scan.initial.base) return;
  const auto word = *reinterpret_cast<const Word<T, kPack>*>(scan.initial.base +
                                                             (lane.batch * scan.initial.batch_step + lane.channel));
#pragma unroll
  for (int v = 0; v < kPack; ++v) state[v] = word.lane(v);
  if constexpr (Step::kNeverNegative) {
#pragma unroll
    for (int v = 0; v < kPack; ++v) {
      const int64_t channels = static_cast<int64_t>(scan.packs) * kPack;
      if (state[v] < 0)
        report(scan.faults, Fault::negative_state, lane.batch * channels + lane.channel + v, state[v], 0);
    }
  }
}

/// A summary of the block of another rank, at the same place as `own`.
template <class Summary>
__device__ __forceinline__ Summary peer_summary(const Summary* own, int rank) {
  constexpr int kWords = sizeof(Summary) / sizeof(float);
  struct Words {
    float word[kWords];
  } words;
#pragma unroll
  for (int i = 0; i < kWords; ++i) words.word[i] = read_peer(reinterpret_cast<const float*>(own) + i, rank);
  return __builtin_bit_cast(Summary, words);
}

template <class Step, class T, int kPack, int kSteps, bool kSpread>
__global__ void __launch_bounds__(kMostScanThreads) scan_kernel(const __grid_constant__ Scan<Step, T> scan) {
  using Summary = typename Step::Summary;
  extern __shared__ float shared_memory[];
  constexpr int kBlocks = kSpread ? kSpan : 1;
  const int lanes = scan.lanes, segments = scan.segments;
  const int thread = static_cast<int>(threadIdx.x), own = thread & (lanes - 1), segment = thread / lanes;
  const int rank = static_cast<int>(blockIdx.x % kBlocks);
  const unsigned row = blockIdx.x / kBlocks * static_cast<unsigned>(lanes) + static_cast<unsigned>(own);
  const Lane lane{static_cast<int>(row / scan.packs), static_cast<int>(row % scan.packs) * kPack, row < scan.rows};
  const auto step_of = [&](int round) { return ((round * kBlocks + rank) * segments + segment) * kSteps; };
  // A lane's summaries lie side by side, an odd number of slots from the next lane's: no bank conflicts. After all of
  // these, the summaries of whole tiles, of this round and of the one before.
  Summary* const slots = reinterpret_cast<Summary*>(shared_memory);
  const auto slot_of = [&](int v) { return slots + (v * lanes + own) * (segments | 1); };
  const auto whole_of = [&](int v, int round) {
    return slots + lanes * (kPack * (segments | 1) + (round & 1) * kPack + v) + own;
  };

  Stretch<Step, T, kPack, kSteps> stretch;
  stretch.load(scan, lane, step_of(0));
  float state[kPack];
  if (segment == 0) enter<Step>(scan, lane, state);
  for (int round = 0; round < scan.rounds; ++round) {
    const int step = step_of(round);
    stretch.prepare(scan, step);
    if (segments > 1) {
      Summary run[kPack];
      stretch.summarise(run);
#pragma unroll
      for (int v = 0; v < kPack; ++v) slot_of(v)[segment] = run[v];
      __syncthreads();
    }
    if (round + 1 < scan.rounds) stretch.load(scan, lane, step_of(round + 1));
    if (segments == 1) {
      stretch.replay(scan, lane, step, state);
      continue;
    }
    if constexpr (kSpread) {
      if (segment == 0) {
#pragma unroll
        for (int v = 0; v < kPack; ++v) {
          Summary whole = slot_of(v)[0];
#pragma unroll 4
          for (int s = 1; s < segments; ++s) whole = combine(whole, slot_of(v)[s]);
          *whole_of(v, round) = whole;
        }
      }
      cluster_barrier();
    }
    if (segment == 0) {
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        float h = state[v];
        if constexpr (kSpread) {
#pragma unroll
          for (int block = 0; block < kSpan; ++block) {
            if (block == rank) h = state[v];
            state[v] = peer_summary(whole_of(v, round), block).advance(state[v]);
          }
        }
        Summary* const slot = slot_of(v);
#pragma unroll 4
        for (int s = 0; s < segments; ++s) {
          const Summary run = slot[s];
          *reinterpret_cast<float*>(slot + s) = h;  // what enters the segment
          h = run.advance(h);
        }
        if constexpr (!kSpread) state[v] = h;
      }
    }
    __syncthreads();
    float entering[kPack];
#pragma unroll
    for (int v = 0; v < kPack; ++v) entering[v] = *reinterpret_cast<const float*>(slot_of(v) + segment);
    stretch.replay(scan, lane, step, entering);
  }
  if constexpr (kSpread) cluster_barrier();  // others may still be reading
}

}  // namespace monoid::cuda

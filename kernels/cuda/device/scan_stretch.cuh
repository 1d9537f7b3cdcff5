#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "monoid/core/dtype.h"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/recall.h"

// What one thread of the scan engine (scan_engine.cuh) does: a stretch of steps of a pack of channels, in registers.

namespace monoid::cuda {

/// Rows of channels by batch and step; no base: not there.
template <class T>
struct Rows {
  T* base = nullptr;
  int64_t batch_step = 0;
  int time_step = 0;
};

struct NoOptions {};
template <class Step>
struct OptionsOf {
  using Type = NoOptions;
};
template <class Step>
requires requires { typename Step::Options; }
struct OptionsOf<Step> {
  using Type = typename Step::Options;
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
  Rows<float> kept = {};  // states of kernels/recall.h: by group
  [[no_unique_address]] typename OptionsOf<Step>::Type options{};
};

/// Reals in a state: 1, or the 2 of a complex number.
template <class State>
inline constexpr int kParts = static_cast<int>(sizeof(State) / sizeof(float));

// Rows of pairs are one row each of a step's first and second value.
template <class Step>
constexpr bool opens_pair(bool input, int i) {
  if constexpr (requires { Step::kPairedInputs; }) return (input ? Step::kPairedInputs : Step::kPairedOutputs) >> i & 1;
  return false;
}
template <class Step>
constexpr bool closes_pair(bool input, int i) {
  return i > 0 && opens_pair<Step>(input, i - 1);
}
template <class Step>
constexpr bool keeps() {
  if constexpr (requires { Step::kKeeps; }) return Step::kKeeps;
  return false;
}
template <class Step>
constexpr bool recalls() {
  if constexpr (requires { Step::kRecalls; }) return Step::kRecalls;
  return false;
}

template <class Step>
constexpr bool follows_early() {
  return requires(typename Step::Element element, typename Step::State state) { Step::follow(element, state); };
}

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

/// kPack adjacent pairs, as memory holds them too: two words, of a part each where a word is one number.
template <class T, int kPack>
struct Pair {
  using Raw = Word<T, kPack>;
  static constexpr bool kWide = kPack * sizeof(T) == 4;  // one load; addresses are aligned to it
  struct alignas(2 * sizeof(Raw)) Both {
    Raw words[2];
  };

  __device__ static void load(const T* from, Raw& first, Raw& second) {
    if constexpr (kWide) {
      const Both both = *reinterpret_cast<const Both*>(from);
      first = both.words[0], second = both.words[1];
    } else {
      first = reinterpret_cast<const Raw*>(from)[0], second = reinterpret_cast<const Raw*>(from)[1];
    }
  }
  /// Part c of channel v.
  __device__ static float lane(const Raw& first, const Raw& second, int v, int c) {
    if constexpr (kPack == 2) return v == 0 ? first.lane(c) : second.lane(c);
    return c == 0 ? first.lane(0) : second.lane(0);
  }
  __device__ static void store(T* to, const float (&re)[kPack], const float (&im)[kPack]) {
    Both both;
    if constexpr (kPack == 2) {
      both = {Raw::of({re[0], im[0]}), Raw::of({re[1], im[1]})};
    } else {
      both = {Raw::of(re), Raw::of(im)};
    }
    if constexpr (kWide) {
      *reinterpret_cast<Both*>(to) = both;
    } else {
      reinterpret_cast<Raw*>(to)[0] = both.words[0], reinterpret_cast<Raw*>(to)[1] = both.words[1];
    }
  }
};

/// kPack states in f32, as they are kept: one load or store.
template <class State, int kPack>
struct alignas(sizeof(State) * kPack) KeptStates {
  State of[kPack];
};

/// A tile of one thread: kSteps steps of kPack channels.
template <class Step, class T, int kPack, int kSteps>
struct Stretch {
  using Summary = typename Step::Summary;
  using State = typename Step::State;
  using Element = typename Step::Element;
  using Raw = Word<T, kPack>;
  using Pairs = Pair<T, kPack>;
  using Kept = KeptStates<State, kPack>;
  static constexpr int kGroup = static_cast<int>(kRecallSteps);
  struct Nothing {};

  Raw raw[kSteps][Step::kInputs];
  Element elements[kSteps][kPack];
  [[no_unique_address]] std::conditional_t<recalls<Step>(), Kept[kSteps / kGroup], Nothing> recalled;

  template <class Row>
  __device__ static Row* address(const Rows<Row>& rows, const Lane& lane, int step, int parts = 1) {
    return rows.base +
           (lane.batch * rows.batch_step + static_cast<int64_t>(step) * rows.time_step + lane.channel * parts);
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
    __device__ static const typename Pairs::Both zero = {};
#pragma unroll
    for (int i = 0; i < Step::kInputs; ++i) {
      if (closes_pair<Step>(true, i)) continue;
      const bool pair = opens_pair<Step>(true, i);
      const Rows<const T>& rows = scan.in[i];
      const T* from = rows.base ? address(rows, lane, step, pair ? 2 : 1) : reinterpret_cast<const T*>(&zero);
#pragma unroll
      for (int u = 0; u < kSteps; ++u) {
        if (!kInner && step + u >= scan.steps) break;
        const bool closes = !kInner && i == Step::kClosing && step + u == scan.steps - 1;
        if (pair && !(closes && !scan.closing.base)) {
          Pairs::load(closes ? address(scan.closing, lane, 0, 2) : from + int64_t{rows.time_step} * u, raw[u][i],
                      raw[u][i + (pair ? 1 : 0)]);
        } else if (pair) {
          raw[u][i] = raw[u][i + (pair ? 1 : 0)] = closing(scan, lane);
        } else {
          raw[u][i] = closes ? closing(scan, lane) : *reinterpret_cast<const Raw*>(from + int64_t{rows.time_step} * u);
        }
      }
    }
    if constexpr (recalls<Step>()) {
      // Steps of an adjoint count from the end, and so do groups.
      const int group = static_cast<int>(recall_groups(scan.steps)) - 1 - step / kGroup;
#pragma unroll
      for (int g = 0; g < kSteps / kGroup; ++g)
        if (kInner || step + g * kGroup < scan.steps) recalled[g] = *kept_at(scan, lane, group - g);
    }
  }
  __device__ static Kept* kept_at(const Scan<Step, T>& scan, const Lane& lane, int group) {
    return reinterpret_cast<Kept*>(address(scan.kept, lane, group, kParts<State>));
  }
  __device__ static Raw closing(const Scan<Step, T>& scan, const Lane& lane) {
    if (scan.closing.base) return *reinterpret_cast<const Raw*>(address(scan.closing, lane, 0));
    float closed[kPack];
#pragma unroll
    for (int v = 0; v < kPack; ++v) closed[v] = Step::kClosed;
    return Raw::of(closed);
  }
  __device__ static void write(T* to, const float (&values)[kPack]) { *reinterpret_cast<Raw*>(to) = Raw::of(values); }

  /// Input i of a step of a channel.
  __device__ float input(int u, int i, int v) const {
    const int before = i > 0 ? i - 1 : 0, after = i + 1 < Step::kInputs ? i + 1 : i;
    if (opens_pair<Step>(true, i)) return Pairs::lane(raw[u][i], raw[u][after], v, 0);
    if (closes_pair<Step>(true, i)) return Pairs::lane(raw[u][before], raw[u][i], v, 1);
    return raw[u][i].lane(v);
  }

  __device__ void prepare(const Scan<Step, T>& scan, int step) {
#pragma unroll
    for (int reached = 0; reached < kSteps; ++reached) {
      // States are made again from the far end of each group on, which comes before the others in time.
      const int u = recalls<Step>() ? reached / kGroup * kGroup + kGroup - 1 - reached % kGroup : reached;
#pragma unroll
      for (int v = 0; v < kPack; ++v) {
        float in[Step::kInputs];
#pragma unroll
        for (int i = 0; i < Step::kInputs; ++i) in[i] = input(u, i, v);
        if constexpr (requires { Step::open(in); }) {
          if (u == 0 && step == 0 && !scan.initial.base) Step::open(in);
        }
        if constexpr (recalls<Step>()) {
          State& state = recalled[u / kGroup].of[v];
          State after;
          elements[u][v] = Step::element(in, scan.options, state, after);
          if (step + u < scan.steps) state = after;
        } else if constexpr (requires { Step::element(in, scan.options); }) {
          elements[u][v] = Step::element(in, scan.options);
        } else {
          elements[u][v] = Step::element(in);
        }
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

  /// The states after all steps.
  __device__ void follow(const State (&from)[kPack], State (&to)[kPack]) const {
#pragma unroll
    for (int v = 0; v < kPack; ++v) {
      to[v] = from[v];
#pragma unroll
      for (int u = 0; u < kSteps; ++u) to[v] = Step::follow(elements[u][v], to[v]);
    }
  }

  __device__ void replay(const Scan<Step, T>& scan, const Lane& lane, int step, State (&state)[kPack]) const {
    if (is_inner(scan, lane, step)) {
      replay_steps<true>(scan, lane, step, state);
    } else if (lane.active) {
      replay_steps<false>(scan, lane, step, state);
    }
  }
  template <bool kInner>
  __device__ void replay_steps(const Scan<Step, T>& scan, const Lane& lane, int step, State (&state)[kPack]) const {
    T* to[Step::kOutputs];
#pragma unroll
    for (int o = 0; o < Step::kOutputs; ++o)
      to[o] = address(scan.out[o], lane, step, opens_pair<Step>(false, o) ? 2 : 1);
#pragma unroll
    for (int u = 0; u < kSteps; ++u) {
      if (!kInner && step + u >= scan.steps) break;
      if constexpr (keeps<Step>()) keep(scan, lane, step + u, u, state);
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
        T* const at = to[o] + int64_t{scan.out[o].time_step} * u;
        const int second = o + 1 < Step::kOutputs ? o + 1 : o;
        if (opens_pair<Step>(false, o))
          Pairs::store(at, out[o], out[second]);
        else if (!closes_pair<Step>(false, o))
          write(at, out[o]);
      }
    }
    const int end = max(scan.steps, 1) - 1;
    if (!kInner && scan.final.base && step <= end && end < step + kSteps) leave(scan, lane, state);
  }
  __device__ static void leave(const Scan<Step, T>& scan, const Lane& lane, const State (&state)[kPack]) {
    T* const to = address(scan.final, lane, 0, kParts<State>);
    if constexpr (kParts<State> == 1) {
      write(to, state);
    } else {
      float re[kPack], im[kPack];
#pragma unroll
      for (int v = 0; v < kPack; ++v) re[v] = state[v].re, im[v] = state[v].im;
      Pairs::store(to, re, im);
    }
  }
  /// Leaves the states that enter a group where the adjoint will look for them.
  __device__ static void keep(const Scan<Step, T>& scan, const Lane& lane, int step, int u,
                              const State (&state)[kPack]) {
    const int left = scan.steps - step;
    if (!scan.kept.base || !(left % kGroup == 0 || (u == 0 && step == 0))) return;
    Kept kept;
#pragma unroll
    for (int v = 0; v < kPack; ++v) kept.of[v] = state[v];
    *kept_at(scan, lane, static_cast<int>(recall_groups(scan.steps) - recall_groups(left))) = kept;
  }
};

template <class Step, class T, int kPack>
__device__ void enter_real(const Scan<Step, T>& scan, const Lane& lane, bool checks, float (&state)[kPack]) {
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

/// The states that enter a lane; `checks`: reports negative ones where they are a fault.
template <class Step, class T, int kPack>
__device__ void enter(const Scan<Step, T>& scan, const Lane& lane, bool checks, typename Step::State (&state)[kPack]) {
  using State = typename Step::State;
#pragma unroll
  for (int v = 0; v < kPack; ++v) state[v] = State(Step::kEmpty);
  if (!lane.active || !scan.initial.base) return;
  if constexpr (kParts<State> == 2) {
    static_assert(!Step::kNeverNegative);
    Word<T, kPack> first, second;
    Pair<T, kPack>::load(scan.initial.base + (lane.batch * scan.initial.batch_step + 2 * lane.channel), first, second);
#pragma unroll
    for (int v = 0; v < kPack; ++v)
      state[v] = State(Pair<T, kPack>::lane(first, second, v, 0), Pair<T, kPack>::lane(first, second, v, 1));
  } else {
    enter_real<Step>(scan, lane, checks, state);
  }
}

}  // namespace monoid::cuda

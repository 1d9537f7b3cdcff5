#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "monoid/core/memory.h"
#include "monoid/core/parallel.h"
#include "monoid/core/tensor.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/monoid.h"
#include "monoid/kernels/recall.h"
#include "monoid/kernels/scan.h"

namespace monoid::cpu {

// One engine for every first-order scan. Time is the outer loop and channels the vectorised inner one: each step reads
// and writes whole rows, and the state is one row that stays in the L1 cache. Batch rows and channel tiles go to
// threads. Where these are too few, time is cut into chunks: every chunk but the first is summarised as one element of
// the step's monoid, the summaries are folded in order into the state that enters each chunk, and the chunks are
// replayed from it. Tiles and chunks follow from the shape alone, never from the number of threads.
//
// A step is a struct with
//   Summary                             the monoid that composes its elements
//   row(batch, time, channel)           pointers for one row, with
//     T advance(channel, T state)         does the step: writes its outputs, returns the next state
//     T begin(channel)                    the same where there is no state
//     element(channel)                    what `combine(Summary, element)` takes
//   prefetch(batch, time, tile)         optional: asks for the rows that `row` will read. Up to half again as fast from
//                                       DRAM where a step computes much and reads little; a loss elsewhere
//   kept(batch, index, channel)         optional: where the state that enters a group of kRecallSteps steps is left
//                                       (kernels/recall.h), if not nullptr
//   recalled(batch, index, channel)     optional: the same read by the adjoint; `row.previous` then holds the states
//                                       that entered each step, made again by `row.redo(channel, state)`
// States are real or Complex.

constexpr int64_t kWidestTile = 2048;       // channels of a state row
constexpr int64_t kNarrowestTile = 256;     // narrower rows lose to page crossings
constexpr int64_t kEnoughTasks = 16;        // tiles stop narrowing there
constexpr int64_t kFewTasks = 2;            // fewer tiles than this: time is cut
constexpr int64_t kChunk = 256;             // steps of a chunk
constexpr int64_t kTaskElements = 1 << 14;  // less work than this is not worth a thread

/// Rows of channels at a batch and time index; all steps 0 for one row that stands for every other.
template <class T>
struct Rows {
  T* base = nullptr;
  int64_t batch_step = 0, time_step = 0, channel_step = 0;

  T* at(int64_t batch, int64_t time, int64_t channel) const {
    return base + batch * batch_step + time * time_step + channel * channel_step;
  }
};

/// One row of a constant, as long as the widest tile.
template <class T>
Rows<const T> constant_row(T value) {
  static const auto filled = [](T filler) {
    std::array<T, kWidestTile> row;
    row.fill(filler);
    return row;
  };
  static const auto zeros = filled(0), nothing = filled(-std::numeric_limits<T>::infinity());
  return {value == 0 ? zeros.data() : nothing.data(), 0, 0, 0};
}

/// Rows of a [batch, time, channel] or [batch, channel] tensor; of `absent` where it is undefined.
template <class T>
Rows<const T> rows_of(const Tensor& tensor, T absent = 0) {
  if (!tensor.defined()) return constant_row(absent);
  const Strides& strides = tensor.strides();
  return {tensor.data<T>(), strides[0], tensor.rank() == 3 ? strides[1] : 0, 1};
}

template <class T>
Rows<T> rows_of(Tensor& tensor) {
  if (!tensor.defined()) return {};
  const Strides& strides = tensor.strides();
  return {tensor.data<T>(), strides[0], tensor.rank() == 3 ? strides[1] : 0, 1};
}

/// Rows of states: of a real tensor, or pairs of a contiguous [batch, ..., 2] one.
template <class State>
struct StateRows {
  static Rows<const State> of(const Tensor& tensor, State absent) { return rows_of<State>(tensor, absent); }
  static Rows<State> of(Tensor& tensor) { return rows_of<State>(tensor); }
};
template <class T>
struct StateRows<Complex<T>> {
  static Rows<const Complex<T>> of(const Tensor& tensor, Complex<T>) {
    static constexpr std::array<Complex<T>, kWidestTile> kZeros{};
    if (!tensor.defined()) return {kZeros.data(), 0, 0, 0};
    return {reinterpret_cast<const Complex<T>*>(tensor.data<T>()), tensor.strides()[0] / 2, 0, 1};
  }
  static Rows<Complex<T>> of(Tensor& tensor) {
    if (!tensor.defined()) return {};
    return {reinterpret_cast<Complex<T>*>(tensor.data<T>()), tensor.strides()[0] / 2, 0, 1};
  }
};

/// Extents of a scan, and the order in which it meets the time steps.
struct ScanShape {
  int64_t batch, time, channel;
  Direction direction;

  ScanShape(const Tensor& states, Direction way) : ScanShape(states.size(0), states.size(1), states.size(2), way) {}
  ScanShape(int64_t batches, int64_t times, int64_t channels, Direction way)
      : batch(batches), time(times), channel(channels), direction(way) {}

  int64_t time_of(int64_t step) const { return direction == Direction::forward ? step : time - 1 - step; }
};

constexpr Direction opposite(Direction direction) {
  return direction == Direction::forward ? Direction::reverse : Direction::forward;
}

/// The states that entered each step of a finished scan: those of the step before, and the initial ones.
template <class T>
struct PreviousRows {
  Rows<const T> states, initial;
  int64_t first, towards_previous;

  PreviousRows(const Tensor& states_tensor, const Tensor& initial_tensor, Direction direction, T absent)
      : states(rows_of<T>(states_tensor)),
        initial(rows_of<T>(initial_tensor, absent)),
        first(direction == Direction::forward ? 0 : states_tensor.size(1) - 1),
        towards_previous(direction == Direction::forward ? -1 : 1) {}

  const T* at(int64_t batch, int64_t time, int64_t channel) const {
    return time == first ? initial.at(batch, 0, channel) : states.at(batch, time + towards_previous, channel);
  }
};

struct ChannelTile {
  int64_t begin, width;
};

inline int64_t tile_width(const ScanShape& shape) {
  const int64_t tasks_wanted = (kEnoughTasks + shape.batch - 1) / std::max<int64_t>(shape.batch, 1);
  const int64_t narrow = std::max(kNarrowestTile, shape.channel / std::max<int64_t>(tasks_wanted, 1));
  return std::min(kWidestTile, (narrow + 63) / 64 * 64);
}

// A complex state part by part: loops that copy it whole do not vectorise.
template <class T>
T load_state(const T* at) {
  return *at;
}
template <class T>
Complex<T> load_state(const Complex<T>* at) {
  return Complex<T>(at->re, at->im);
}
template <class T>
void store_state(T* at, T state) {
  *at = state;
}
template <class T>
void store_state(Complex<T>* at, Complex<T> state) {
  at->re = state.re;
  at->im = state.im;
}

/// Asks for a row before it is read: a row a step away is on another page, where the hardware does not look ahead. The
/// empty asm keeps the loop from being vectorised, which would drop the prefetches.
template <class T>
void prefetch_row(const T* row, int64_t width) {
  for (int64_t c = 0; c < width; c += static_cast<int64_t>(64 / sizeof(T))) {
    __builtin_prefetch(row + c);
    asm volatile("");
  }
}

/// The states that entered `steps` steps of a finished scan, which an adjoint meets from `begin` on: a row a step, made
/// again from the one that was kept.
template <class State, class Step>
void recall(const Step& step, const ScanShape& shape, int64_t batch, ChannelTile tile, int64_t begin, State* rows) {
  const int64_t steps = std::min(kRecallSteps, shape.time - begin);
  State* row_of_first = rows + (steps - 1) * tile.width;
  std::copy_n(step.recalled(batch, recall_groups(shape.time) - 1 - begin / kRecallSteps, tile.begin), tile.width,
              row_of_first);
  for (int64_t i = steps - 1; i > 0; --i) {
    const auto row = step.row(batch, shape.time_of(begin + i), tile.begin);
    const State* before = rows + i * tile.width;
    State* after = rows + (i - 1) * tile.width;
#pragma GCC ivdep
    for (int64_t c = 0; c < tile.width; ++c) store_state(after + c, row.redo(c, load_state(before + c)));
  }
}

/// Runs steps [begin, end) over one tile; `state` is a row in the cache. `fresh`: no state enters the first one.
template <class State, class Step>
void walk(const Step& step, const ScanShape& shape, int64_t batch, ChannelTile tile, int64_t begin, int64_t end,
          State* state, bool fresh) {
  constexpr bool kKeeps = requires { step.kept(0, 0, 0); }
  , kRecalls = requires { step.recalled(0, 0, 0); };
  vectorised([=] {
    [[maybe_unused]] alignas(64) State recalled[kRecalls ? kRecallSteps * kWidestTile : 1];
    for (int64_t i = begin; i < end; ++i) {
      if constexpr (requires { step.prefetch(batch, i, tile); }) {
        if (i > begin && i + 1 < end) step.prefetch(batch, shape.time_of(i + 1), tile);
      }
      if constexpr (kKeeps) {
        if (State* to = opens_recall_group(i, shape.time) ? step.kept(batch, recall_group_of(i, shape.time), tile.begin)
                                                          : nullptr)
          std::copy_n(state, tile.width, to);
      }
      if constexpr (kRecalls) {
        if (i % kRecallSteps == 0) recall(step, shape, batch, tile, i, recalled);
      }
      auto row = step.row(batch, shape.time_of(i), tile.begin);
      if constexpr (kRecalls) row.previous = recalled + i % kRecallSteps * tile.width;
      if (fresh && i == 0) {
#pragma GCC ivdep
        for (int64_t c = 0; c < tile.width; ++c) store_state(state + c, row.begin(c));
      } else {
#pragma GCC ivdep
        for (int64_t c = 0; c < tile.width; ++c) store_state(state + c, row.advance(c, load_state(state + c)));
      }
    }
  });
}

template <class T, class Step>
void summarise(const Step& step, const ScanShape& shape, int64_t batch, ChannelTile tile, int64_t begin, int64_t end,
               typename Step::Summary* summary) {
  vectorised([=] {
    for (int64_t c = 0; c < tile.width; ++c) summary[c] = Step::Summary::identity();
    for (int64_t i = begin; i < end; ++i) {
      const auto row = step.row(batch, shape.time_of(i), tile.begin);
#pragma GCC ivdep
      for (int64_t c = 0; c < tile.width; ++c) summary[c] = combine(summary[c], row.element(c));
    }
  });
}

/// Runs the whole scan; T is the type of its states. `empty` is the state that stands for none (0, or -inf for
/// logarithms); `final` may be undefined.
template <class T, class Step>
void scan_rows(const Step& step, const ScanShape& shape, const Tensor& initial, Tensor& final, T empty = T(0)) {
  using Summary = typename Step::Summary;
  const int64_t width = tile_width(shape), tiles = (shape.channel + width - 1) / width, rows = shape.batch * tiles;
  const Rows<const T> entering = StateRows<T>::of(initial, empty);
  const Rows<T> leaving = StateRows<T>::of(final);
  const auto tile_at = [&](int64_t row) {
    const int64_t begin = row % tiles * width;
    return ChannelTile{begin, std::min(width, shape.channel - begin)};
  };
  const auto from_the_start = [&](int64_t row, int64_t end, T* state) {
    const ChannelTile tile = tile_at(row);
    std::copy_n(entering.at(row / tiles, 0, tile.begin), tile.width, state);
    walk(step, shape, row / tiles, tile, 0, end, state, !initial.defined());
  };
  const auto leave = [&](int64_t row, const T* state) {
    const ChannelTile tile = tile_at(row);
    if (leaving.base) std::copy_n(state, tile.width, leaving.at(row / tiles, 0, tile.begin));
  };

  if (rows >= kFewTasks || shape.time < 4 * kChunk) {
    const int64_t grain = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, shape.time * width));
    parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
      alignas(64) T state[kWidestTile];
      for (int64_t row = begin; row < end; ++row) {
        from_the_start(row, shape.time, state);
        leave(row, state);
      }
    });
    return;
  }

  // Chunk 0 runs as it is; 1 .. last - 1 are summarised; carries[k] is the state that enters chunk k.
  const int64_t chunks = (shape.time + kChunk - 1) / kChunk, last = chunks - 1;
  Storage summary_storage(static_cast<size_t>(rows * chunks * width) * sizeof(Summary), kCpu);
  Storage carry_storage(static_cast<size_t>(rows * chunks * width) * sizeof(T), kCpu);
  const auto summary_at = [&](int64_t row, int64_t k) {
    return static_cast<Summary*>(summary_storage.data()) + (row * chunks + k) * width;
  };
  const auto carry_at = [&](int64_t row, int64_t k) {
    return static_cast<T*>(carry_storage.data()) + (row * chunks + k) * width;
  };
  parallel_for(rows * last, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / last, k = task % last;
      if (k == 0) {
        from_the_start(row, kChunk, carry_at(row, 1));
      } else {
        summarise<T>(step, shape, row / tiles, tile_at(row), k * kChunk, (k + 1) * kChunk, summary_at(row, k));
      }
    }
  });
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t k = 1; k < last; ++k) {
        const Summary* summary = summary_at(row, k);
        const T* state = carry_at(row, k);
        T* next = carry_at(row, k + 1);
        for (int64_t c = 0; c < tile_at(row).width; ++c) next[c] = summary[c].advance(state[c]);
      }
    }
  });
  parallel_for(rows * last, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / last, k = task % last + 1;
      T* state = carry_at(row, k);
      walk(step, shape, row / tiles, tile_at(row), k * kChunk, std::min(shape.time, (k + 1) * kChunk), state, false);
      if (k == last) leave(row, state);
    }
  });
}

}  // namespace monoid::cpu

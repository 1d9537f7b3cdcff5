#pragma once

#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/polar.cuh"
#include "monoid/kernels/cuda/device/tile_product.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/polar_gate.h"

// GateLoop with heads of d channels, a chunk of 64 steps at a time; kernels/cpu/gate_loop_outer.cpp has the
// mathematics. With A_t the product of the transitions of a chunk up to step t, w_ts = A_t / A_s is what a key of step
// s has become at t. |a| >= 1/2, so A and 1 / A stay within 2^64 inside a chunk.
//
//   summary   what a chunk adds to the state, the sum of A_end / A_s k_s v_s^T, and its transition A_end
//   pass      from chunk to chunk, an element of the state a thread: what enters each
//   read      y_t = sum over s <= t of (q_t.k_s) Re(w_ts) v_s + q_t^T Re(A_t S)

namespace monoid::cuda {

inline constexpr int kChunk = kTile;

template <class T>
struct HeadRows {
  T* base = nullptr;
  int64_t batch_step = 0, time_step = 0, head_step = 0;

  __device__ T* at(int batch, int head, int time) const {
    return base + (batch * batch_step + time * time_step + head * head_step);
  }
};

template <class T>
struct OuterShape {
  HeadRows<const T> query = {}, key = {}, value = {}, z = {};
  int batch = 0, time = 0, heads = 0, size = 0, chunks = 0;
  TransitionRule<float> rule;
};

/// The chunk of a block: blockIdx.x counts chunks, blockIdx.y heads of all batches.
template <class T>
struct Chunk {
  const OuterShape<T>& shape;
  int index, row, batch, head, begin, steps;

  __device__ explicit Chunk(const OuterShape<T>& all)
      : shape(all),
        index(static_cast<int>(blockIdx.x)),
        row(static_cast<int>(blockIdx.y)),
        batch(row / all.heads),
        head(row % all.heads),
        begin(index * kChunk),
        steps(min(kChunk, all.time - begin)) {}

  /// Channel c of a step of the chunk, 0 outside.
  __device__ float read(const HeadRows<const T>& rows, int step, int c) const {
    return rows.base && step < steps && c < shape.size ? widen(rows.at(batch, head, begin + step)[c]) : 0;
  }
  __device__ int64_t plane() const { return int64_t{2} * shape.size * shape.size; }
  __device__ int64_t place(int count, int at) const { return (int64_t{row} * count + at); }
};

/// A_t and 1 / A_t of the steps of a chunk; steps past the end change nothing.
struct Products {
  Complex<float> forward[kChunk], inverse[kChunk];

  /// w_ts, what step s is at step t.
  __device__ Complex<float> between(int t, int s) const { return forward[t] * inverse[s]; }
  __device__ Complex<float> to_end(int s) const { return between(kChunk - 1, s); }

  template <class T>
  __device__ static PolarGate<float> gate(const Chunk<T>& chunk, int step) {
    const T* z = chunk.shape.z.at(chunk.batch, chunk.head, chunk.begin + step);
    return chunk.shape.rule.template gate<PolarMath>(widen(z[0]), widen(z[1]));
  }

  /// By the whole block.
  template <class T>
  __device__ void fill(const Chunk<T>& chunk) {
    const int step = static_cast<int>(threadIdx.x);
    Complex<float> a(1), back(1);
    if (step < chunk.steps) {
      const PolarGate<float> own = gate(chunk, step);
      const float inverse_size = 1 / own.size;
      a = own.value(), back = Complex<float>(own.unit.re * inverse_size, -own.unit.im * inverse_size);
    }
    for (int apart = 1; apart <= kChunk; apart *= 2) {
      if (step < kChunk) forward[step] = a, inverse[step] = back;
      __syncthreads();
      if (step < kChunk && step >= apart) a = a * forward[step - apart], back = back * inverse[step - apart];
      __syncthreads();
    }
  }
};

/// Part n % 2 of pair n / 2 of a row of complex numbers.
__device__ __forceinline__ float part(const Complex<float>& x, int n) { return n % 2 == 0 ? x.re : x.im; }

/// The sum of left_s right_s^T weighted by weight(s), a complex number, over a chunk: a d x d matrix of pairs.
template <class T, class Weight>
__device__ void write_summary(const Chunk<T>& chunk, TileOperands& operands, const HeadRows<const T>& left,
                              const HeadRows<const T>& right, Weight weight, float* to) {
  const int size = chunk.shape.size;
  for (int i = 0; i < size; i += kTile) {
    for (int n = 0; n < 2 * size; n += kTile) {
      TileProduct tile;
      tile.add<false>(
          operands, chunk.steps, [&](int row, int s) { return chunk.read(left, s, i + row); },
          [&](int s, int column) { return chunk.read(right, s, (n + column) / 2) * part(weight(s), column); });
      tile.visit([&](int row, int column, float x) {
        if (i + row < size && n + column < 2 * size) to[int64_t{2} * size * (i + row) + n + column] = x;
      });
    }
  }
}

/// The products of two rows of channels each: left_t . right_s, into shared memory.
template <class T>
__device__ void write_scores(const Chunk<T>& chunk, TileOperands& operands, const HeadRows<const T>& left,
                             const HeadRows<const T>& right, float (*scores)[kChunk + 1]) {
  TileProduct tile;
  tile.add<true>(
      operands, chunk.shape.size, [&](int t, int c) { return chunk.read(left, t, c); },
      [&](int c, int s) { return chunk.read(right, s, c); });
  tile.visit([&](int t, int s, float x) { scores[t][s] = x; });
}

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    summary_kernel(const __grid_constant__ OuterShape<T> shape, float* states, float* transitions) {
  __shared__ TileOperands operands;
  __shared__ Products products;
  wait_for_previous();
  const Chunk<T> chunk(shape);
  products.fill(chunk);
  const int64_t at = chunk.place(shape.chunks + 1, chunk.index);
  write_summary(
      chunk, operands, shape.key, shape.value, [&](int s) { return products.to_end(s); }, states + at * chunk.plane());
  if (threadIdx.x == 0) {
    float* to = transitions + 2 * chunk.place(shape.chunks, chunk.index);
    to[0] = products.forward[kChunk - 1].re, to[1] = products.forward[kChunk - 1].im;
  }
}

/// Replaces what each chunk adds by what enters it. `kReverse`: from the last chunk on and with conjugate transitions.
template <class T, bool kReverse>
__global__ void __launch_bounds__(kTileThreads) pass_kernel(float* states, const float* transitions, const T* entering,
                                                            T* leaving, int chunks, int slots, unsigned pairs) {
  wait_for_previous();
  const unsigned pair = blockIdx.x * kTileThreads + threadIdx.x, row = blockIdx.y;
  if (pair >= pairs) return;
  const int64_t at = (int64_t{row} * pairs + pair) * 2;
  Complex<float> state(0);
  if (entering) state = Complex<float>(widen(entering[at]), widen(entering[at + 1]));
  float2* const own = reinterpret_cast<float2*>(states) + int64_t{row} * slots * pairs + pair;
  const float2* const a = reinterpret_cast<const float2*>(transitions) + int64_t{row} * chunks;
  constexpr int kAhead = 4;
  for (int first = 0; first < chunks; first += kAhead) {
    float2 added[kAhead], transition[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = kReverse ? chunks - 1 - (first + i) : first + i;
      if (first + i < chunks) added[i] = own[int64_t{chunk} * pairs], transition[i] = a[chunk];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = kReverse ? chunks - 1 - (first + i) : first + i;
      if (first + i >= chunks) break;
      own[int64_t{chunk} * pairs] = make_float2(state.re, state.im);
      const Complex<float> by(transition[i].x, kReverse ? -transition[i].y : transition[i].y);
      state = multiply_add(by, state, Complex<float>(added[i].x, added[i].y));
    }
  }
  if (slots > chunks) own[int64_t{chunks} * pairs] = make_float2(state.re, state.im);
  if (leaving) leaving[at] = narrow<T>(state.re), leaving[at + 1] = narrow<T>(state.im);
}

}  // namespace monoid::cuda

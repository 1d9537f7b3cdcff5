#pragma once

#include "monoid/kernels/cuda/device/async_copy.cuh"
#include "monoid/kernels/cuda/device/matrix_rows.cuh"
#include "monoid/kernels/cuda/faults.h"

// What scans of matrices in both directions share. A block takes a tile: a stretch of one chain (a head of a batch row)
// that fits into shared memory, cut into segments of equal length, one for each group of threads. Positions count in
// the order in which the scan meets time.

namespace monoid::cuda {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileFloats = 16 << 10;  // matrices of a tile in shared memory, 64 KB: three blocks on a Hopper SM

/// Matrices of a [batch, time, head, order, order] tensor, or of a state without time; no base: not there.
template <class T>
struct Matrices {
  T* base = nullptr;
  int64_t batch_step = 0, time_step = 0, head_step = 0;

  __device__ T* at(int batch, int head, int64_t time = 0) const {
    return base + batch * batch_step + head * head_step + time * time_step;
  }
};

/// Bits of a number that nobody has written yet: a NaN that no arithmetic gives.
inline constexpr unsigned kAbsent = 0xffffffffu;

/// Extents, and how tiles are handed out and on.
struct TilePlan {
  int time, heads, chains;
  int steps_log2;     // of a segment: 2^steps_log2
  int tiles;          // of a chain
  bool packed;        // sixteen bytes at a time
  bool backward;      // position 0 is the last step
  unsigned* ticket;   // counts up from kAbsent: what a block does next; null for one tile a chain
  unsigned* carries;  // the state that leaves each tile, every number kAbsent until it is there
  FaultRecord* faults;

  __device__ int time_of(int position) const { return backward ? time - 1 - position : position; }
};

/// d of an LDU matrix. Near 1, where most are, rounded without a bias, which a thousand factors would add up.
__device__ __forceinline__ float ldu_diagonal(float m, float mean) {
  const float half = 0.5f * (m - mean);
  return fabsf(half) < 0.5f ? 1 + expm1f(half) : expf(half);
}

/// A block's place in the plan, and its threads' places in the tile.
template <int kRows, int kOrder>
struct TilePlace {
  static constexpr int kSize = kOrder * kOrder, kLanes = kOrder / kRows, kSegments = kTileThreads / kLanes;
  static constexpr int kGap = kOrder < 4 ? 0 : 4;  // floats between segments: groups of a warp read other banks

  const TilePlan& plan;
  int batch, head, chain, tile;
  int first, count;  // positions of the tile
  int segment;       // of this thread
  RowOwner<kRows, kOrder> owner;

  __device__ TilePlace(const TilePlan& given, unsigned block)
      : plan(given), segment(static_cast<int>(threadIdx.x) / kLanes), owner{static_cast<int>(threadIdx.x) % kLanes} {
    chain = static_cast<int>(block % static_cast<unsigned>(plan.chains));
    tile = static_cast<int>(block / static_cast<unsigned>(plan.chains));
    batch = chain / plan.heads;
    head = chain % plan.heads;
    first = tile * (kSegments << plan.steps_log2);
    count = min(kSegments << plan.steps_log2, plan.time - first);
  }

  __device__ int steps() const { return 1 << plan.steps_log2; }
  __device__ int segment_stride() const { return (kSize << plan.steps_log2) + kGap; }
  __device__ int matrices() const { return kSegments * segment_stride(); }
  /// Where the matrix of a position of the tile lies.
  __device__ int offset(int position) const {
    return (position >> plan.steps_log2) * segment_stride() + (position & (steps() - 1)) * kSize;
  }
  __device__ int segments() const { return (count + steps() - 1) >> plan.steps_log2; }
  /// How many steps a segment has: the last ones of time may have fewer, or none.
  __device__ int steps_of(int which) const { return max(0, min(steps(), count - which * steps())); }
  __device__ int time_of(int position) const { return plan.time_of(first + position); }

  /// Starts to bring the tile's matrices into shared memory; commit_copies and wait_for_copies do the rest.
  template <class T>
  __device__ void load(const Matrices<const T>& from, float* shared) const {
    constexpr int kPack = kRowPack<kOrder>, kPacks = kSize / kPack;
    if constexpr (kPack == 4) {
      if (plan.packed) {
#pragma unroll 4
        for (int i = static_cast<int>(threadIdx.x); i < count * kPacks; i += kTileThreads) {
          const int position = i / kPacks, pack = i % kPacks * kPack;
          const T* source = from.at(batch, head, time_of(position)) + pack;
          float* target = shared + offset(position) + pack;
          if constexpr (sizeof(T) == sizeof(float)) {
            copy_async(target, source);
          } else {
            float values[kPack];
            cuda::load<kPack>(source, values);
            store(target, values);
          }
        }
        return;
      }
    }
    for (int i = static_cast<int>(threadIdx.x); i < count * kSize; i += kTileThreads) {
      const int position = i / kSize, entry = i % kSize;
      shared[offset(position) + entry] = widen(from.at(batch, head, time_of(position))[entry]);
    }
  }

  template <class T>
  __device__ void save(const float* shared, const Matrices<T>& to) const {
    constexpr int kPack = kRowPack<kOrder>, kPacks = kSize / kPack;
    if constexpr (kPack == 4) {
      if (plan.packed) {
#pragma unroll 4
        for (int i = static_cast<int>(threadIdx.x); i < count * kPacks; i += kTileThreads) {
          const int position = i / kPacks, pack = i % kPacks * kPack;
          float values[kPack];
          cuda::load<kPack>(shared + offset(position) + pack, values);
          store(to.at(batch, head, time_of(position)) + pack, values);
        }
        return;
      }
    }
    for (int i = static_cast<int>(threadIdx.x); i < count * kSize; i += kTileThreads) {
      const int position = i / kSize, entry = i % kSize;
      to.at(batch, head, time_of(position))[entry] = narrow<T>(shared[offset(position) + entry]);
    }
  }

  /// M of every step of this thread's segment becomes packed LDU: d_i = exp((m_ii - mean) / 2) on its diagonal. Threads
  /// of a warp come together.
  __device__ void pack_ldu(float* shared) const {
    for (int i = 0; i < steps(); ++i) {
      float* m = shared + segment * segment_stride() + i * kSize;
      const bool exists = i < steps_of(segment);
      float diagonal[kRows], sum = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum += diagonal[r] = exists ? m[owner.row(r) * (kOrder + 1)] : 0;
      sum = sum_of_group(sum);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (exists) m[owner.row(r) * (kOrder + 1)] = ldu_diagonal(diagonal[r], sum / kOrder);
    }
    __syncwarp();
  }

  /// Over the threads that hold one matrix, in the same order everywhere.
  __device__ static float sum_of_group(float x) {
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
    return x;
  }

  // The carry of a chain goes from tile to tile. Blocks take their tiles from a counter in the order of positions, all
  // chains of one position first, so what a block waits for is on the GPU already or done.

  __device__ unsigned* carry(int of_tile) const {
    return plan.carries + (static_cast<int64_t>(of_tile) * plan.chains + chain) * kSize;
  }

  /// By all threads, as the others here: the carry that the tile before has left. A number says itself that it is
  /// there, so that it crosses memory once, with no flag before or fence behind it.
  __device__ void receive(float* state) const {
    const unsigned* const from = carry(tile - 1);
    for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kTileThreads) {
      unsigned bits;
      do {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(from + i) : "memory");
      } while (bits == kAbsent);
      state[i] = __uint_as_float(bits);
    }
    __syncthreads();
  }
  __device__ void send(const float* state) const {
    unsigned* const to = carry(tile);
    for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kTileThreads) {
      const unsigned bits = __float_as_uint(state[i]);
      asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to + i), "r"(bits == kAbsent ? bits >> 1 : bits)
                   : "memory");
    }
  }
  /// A state to global memory of any alignment, or from there; `get` of nothing is the identity times `scale`.
  __device__ static void put(const float* state, float* to) {
    for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kTileThreads) to[i] = state[i];
  }
  __device__ static void get(const float* from, float scale, float* state) {
    for (int i = static_cast<int>(threadIdx.x); i < kSize; i += kTileThreads)
      state[i] = from ? from[i] : (i % (kOrder + 1) == 0 ? scale : 0);
    __syncthreads();
  }

  /// Takes a state through the maps of all segments in order, state -> state map + sum, and leaves in place of each map
  /// the state that enters its segment. Returns where the last state is: `state` or the matrix after it. Here a thread
  /// has a few entries of the product, so that a step of this chain is short; `walk(rows, segment)` goes step by step
  /// where a map would make a row leave the range of f32. `fresh`: no state enters, the first map is the next state.
  template <class Walk>
  __device__ float* fold(float* maps, const float* sums, int stride, float* state, bool fresh, const Walk& walk) const {
    constexpr int kEntries = kSize > kTileThreads ? kSize / kTileThreads : 1;
    const int entry = static_cast<int>(threadIdx.x) * kEntries, row = entry / kOrder, column = entry % kOrder;
    const bool has_entry = entry < kSize;
    float* next_state = state + stride;
    for (int s = 0; s < segments(); ++s) {
      float* const map = maps + s * stride;
      bool lost = false;
      if (has_entry) {
        float next[kEntries], before[kOrder];
#pragma unroll
        for (int e = 0; e < kEntries; ++e) next[e] = sums ? sums[s * stride + entry + e] : 0;
#pragma unroll
        for (int k = 0; k < kOrder; k += kRowPack<kOrder>)
          cuda::load<kRowPack<kOrder>>(state + row * kOrder + k,
                                       reinterpret_cast<float(&)[kRowPack<kOrder>]>(before[k]));
        if (fresh && s == 0) {
#pragma unroll
          for (int e = 0; e < kEntries; ++e) next[e] = map[entry + e];
        } else {
          float odd[kEntries] = {};
#pragma unroll
          for (int k = 0; k < kOrder; k += 2) {
#pragma unroll
            for (int e = 0; e < kEntries; ++e) {
              next[e] = fmaf(before[k], map[k * kOrder + column + e], next[e]);
              odd[e] = fmaf(before[k + 1], map[(k + 1) * kOrder + column + e], odd[e]);
            }
          }
          float probe = 0;
#pragma unroll
          for (int e = 0; e < kEntries; ++e) next[e] += odd[e], probe = fmaf(next[e], 0, probe);
          lost = probe != 0 && is_finite(before);
        }
#pragma unroll
        for (int e = 0; e < kEntries; ++e) next_state[entry + e] = next[e];
      }
      if (__syncthreads_or(lost)) {
        if (static_cast<int>(threadIdx.x) < kLanes) owner.write(walk(owner.read(state), s), next_state);
        __syncthreads();
      }
      if (has_entry) {
#pragma unroll
        for (int e = 0; e < kEntries; ++e) map[entry + e] = state[entry + e];
      }
      float* const done = state;
      state = next_state;
      next_state = done;
    }
    return state;
  }
};

/// The tile of this block: the next of those nobody has, or its own.
__device__ __forceinline__ unsigned take_tile(const TilePlan& plan) {
  __shared__ unsigned taken;
  if (!plan.ticket) return blockIdx.x;
  if (threadIdx.x == 0) taken = atomicAdd(plan.ticket, 1u) - kAbsent;
  __syncthreads();
  return taken;
}

/// How far a segment may reach so that `floats_a_step` fit the tile.
template <int kRows, int kOrder>
constexpr int most_steps_log2(int copies) {
  int steps_log2 = 0;
  while ((TilePlace<kRows, kOrder>::kSegments * kOrder * kOrder * copies << (steps_log2 + 1)) <= kTileFloats)
    ++steps_log2;
  return steps_log2;
}

}  // namespace monoid::cuda

#pragma once

#include "monoid/kernels/cuda/device/async_copy.cuh"
#include "monoid/kernels/cuda/device/matrix_rows.cuh"
#include "monoid/kernels/cuda/faults.h"

// What scans of matrices in both directions share. A block takes a tile: a stretch of one chain (a head of a batch row)
// that fits into shared memory, cut into segments of equal length, one for each group of threads. Positions count in
// the order in which the scan meets time.

namespace monoid::cuda {

/// Threads of a block, and numbers of its matrices in shared memory: few enough for several blocks on a multiprocessor,
/// of which some copy while others multiply. Measured.
struct TileShape {
  int threads, numbers;
};
constexpr TileShape tile_shape(int order, bool backward) {
  return order == 16 || (order == 8 && backward) ? TileShape{64, 8 << 10} : TileShape{128, 16 << 10};
}

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
  unsigned* carries;  // the state that leaves each tile, every number kAbsent until it is there
  unsigned* ticket;   // counts up from kAbsent: what a block does next; null for one tile a chain
  FaultRecord* faults;
};

/// d of an LDU matrix. Near 1, where most are, rounded without a bias, which a thousand factors would add up.
__device__ __forceinline__ float ldu_diagonal(float m, float mean) {
  const float half = 0.5f * (m - mean);
  return fabsf(half) < 0.5f ? 1 + expm1f(half) : expf(half);
}

/// A block's place in the plan, and its threads' places in the tile. Backward, position 0 is the last step.
template <int kOrder_, bool kBackward>
struct TilePlace {
  static constexpr TileShape kShape = tile_shape(kOrder_, kBackward);
  static constexpr int kOrder = kOrder_, kThreads = kShape.threads;
  static constexpr int kRows = 1;  // of a thread: more would share what they load, but leave too few threads
  static constexpr int kSize = kOrder * kOrder, kLanes = kOrder / kRows, kSegments = kThreads / kLanes;
  static constexpr int kStride = kSize + 4;  // of maps
  /// Numbers between segments, so that groups of a warp are in other banks: with a pack each, or with columns too.
  static constexpr int kGap = kOrder < 4 ? 0 : kBackward ? kLanes : 4;
  using Rows = MatrixRows<kRows, kOrder>;

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
  __device__ int offset(int position) const { return position * kSize + (position >> plan.steps_log2) * kGap; }
  __device__ int segments() const { return (count + steps() - 1) >> plan.steps_log2; }
  /// How many steps a segment has: the last ones of time may have fewer, or none.
  __device__ int steps_of(int which) const { return max(0, min(steps(), count - which * steps())); }
  __device__ int time_of(int position) const {
    return kBackward ? plan.time - 1 - (first + position) : first + position;
  }

  /// Calls body(there, here) for each pack of the tile's matrices: where it lies in a tensor, `later` in time than the
  /// tile, and in shared memory. A thread has the same pack of every matrix it meets, so that both only move on.
  template <int kPack, class T, class Body>
  __device__ void for_packs(const Matrices<T>& of, int later, const Body& body) const {
    constexpr int kPacks = kSize / kPack, kTogether = kPacks < kThreads ? kThreads / kPacks : 1;
    const int64_t step = (kBackward ? -kTogether : kTogether) * of.time_step;
    const int before = kBackward && later < 0 && first + count == plan.time ? 1 : 0;  // nothing lies before time 0
    for (int pack = static_cast<int>(threadIdx.x) % kPacks; pack < kPacks; pack += kThreads) {
      const int place = entry_at<kOrder>(pack * kPack / kOrder, pack * kPack % kOrder);
      int position = static_cast<int>(threadIdx.x) / kPacks;
      T* there = of.at(batch, head, time_of(position) + later) + pack * kPack;
#pragma unroll 4
      for (; position < count - before; position += kTogether, there += step) body(there, offset(position) + place);
    }
  }

  /// Starts to bring the tile's matrices into shared memory; commit_copies and wait_for_copies do the rest.
  template <class T>
  __device__ void load(const Matrices<const T>& from, float* shared, int later = 0) const {
    if constexpr (kRowPack<kOrder> == 4) {
      if (plan.packed) {
        for_packs<4>(from, later, [&](const T* there, int here) {
          if constexpr (sizeof(T) == sizeof(float)) {
            copy_async(shared + here, there);
          } else {
            float values[4];
            cuda::load<4>(there, values);
            store(shared + here, values);
          }
        });
        return;
      }
    }
    for_packs<1>(from, later, [&](const T* there, int here) { shared[here] = widen(*there); });
  }

  template <class T>
  __device__ void save(const float* shared, const Matrices<T>& to) const {
    if constexpr (kRowPack<kOrder> == 4) {
      if (plan.packed) {
        for_packs<4>(to, 0, [&](T* there, int here) {
          float values[4];
          cuda::load<4>(shared + here, values);
          store(there, values);
        });
        return;
      }
    }
    for_packs<1>(to, 0, [&](T* there, int here) { *there = narrow<T>(shared[here]); });
  }

  /// M of every step of this thread's segment becomes packed LDU: d_i = exp((m_ii - mean) / 2) on its diagonal. Threads
  /// of a warp come together.
  __device__ void pack_ldu(float* shared) const {
    for (int i = 0; i < steps(); ++i) {
      float* m = shared + segment * segment_stride() + i * kSize;
      const bool exists = i < steps_of(segment);
      float diagonal[kRows], sum = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum += diagonal[r] = exists ? m[entry_at<kOrder>(owner.row(r), owner.row(r))] : 0;
      sum = sum_of_group(sum);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (exists) m[entry_at<kOrder>(owner.row(r), owner.row(r))] = ldu_diagonal(diagonal[r], sum / kOrder);
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

  /// A thread's numbers of a carry: some of one row, side by side. Rows pass between the lanes of a warp in registers.
  struct Carry {
    static constexpr int kNumbers = kSize > kThreads ? kSize / kThreads : 1, kPack = kNumbers < 4 ? kNumbers : 4;
    static constexpr int kSharers = kOrder / kNumbers;  // lanes of a row
    float number[kNumbers];

    /// Where a small carry has fewer numbers than a warp has lanes, some have the same; whole warps have none.
    __device__ static bool exists() { return (static_cast<int>(threadIdx.x) & -kWarpLanes) * kNumbers < kSize; }
    __device__ static int first() { return static_cast<int>(threadIdx.x) * kNumbers % kSize; }
    __device__ static int row() { return first() / kOrder; }
    __device__ static int column() { return first() % kOrder; }

    /// From a matrix in shared memory, or there.
    __device__ void read(const float* m) {
#pragma unroll
      for (int i = 0; i < kNumbers; i += kPack)
        cuda::load<kPack>(m + entry_at<kOrder>(row(), column() + i), reinterpret_cast<float(&)[kPack]>(number[i]));
    }
    __device__ void write(float* m) const {
#pragma unroll
      for (int i = 0; i < kNumbers; i += kPack)
        store(m + entry_at<kOrder>(row(), column() + i), reinterpret_cast<const float(&)[kPack]>(number[i]));
    }
    /// From global memory of any alignment, or there; of nothing it is the identity times `scale`.
    __device__ void get(const float* from, float scale) {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i) number[i] = from ? from[first() + i] : (row() == column() + i ? scale : 0);
    }
    __device__ void put(float* to) const {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i) to[first() + i] = number[i];
    }
  };

  __device__ unsigned* carry(int of_tile) const {
    return plan.carries + (static_cast<int64_t>(of_tile) * plan.chains + chain) * kSize + Carry::first();
  }

  /// The carry that the tile before has left. A number says itself that it is there, so that it crosses memory once,
  /// with no flag before or fence behind it.
  __device__ Carry receive() const {
    const unsigned* const from = carry(tile - 1);
    Carry result;
    bool there;
    do {
      there = true;
#pragma unroll
      for (int i = 0; i < Carry::kNumbers; ++i) {
        unsigned bits;
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(from + i) : "memory");
        there = there && bits != kAbsent;
        result.number[i] = __uint_as_float(bits);
      }
    } while (!there);
    __syncwarp();
    return result;
  }
  __device__ void send(const Carry& state) const {
    unsigned* const to = carry(tile);
#pragma unroll
    for (int i = 0; i < Carry::kNumbers; ++i) {
      const unsigned bits = __float_as_uint(state.number[i]);
      asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to + i), "r"(bits == kAbsent ? bits >> 1 : bits)
                   : "memory");
    }
  }

  /// Takes a carry through the maps of all segments in order, carry -> carry map + sum, and returns the last one.
  /// `leave(segment, entering, leaving)` keeps what its lane has of either. Rows are met by warps on their own, so that
  /// a step of this chain is short. `fresh`: nothing enters, the first map is the next carry. `lost`: a row that was
  /// finite is not any more, perhaps only because a map is not.
  template <class Leave>
  __device__ Carry fold(const float* maps, const float* sums, Carry carry, bool fresh, bool& lost,
                        const Leave& leave) const {
    constexpr int kNumbers = Carry::kNumbers, kPack = Carry::kPack;
    const int column = Carry::column(), sharers = static_cast<int>(threadIdx.x) & (kWarpLanes - Carry::kSharers);
    bool sound = false;
    for (int s = 0; s < segments(); ++s) {
      const float* const map = maps + s * kStride;
      float before[kOrder];
#pragma unroll
      for (int k = 0; k < kOrder; ++k)
        before[k] = __shfl_sync(0xffffffffu, carry.number[k % kNumbers], sharers + k / kNumbers);
      if (s == 0) sound = is_finite(before);
      Carry next = {};
      if (sums) next.read(sums + s * kStride);
      if (fresh && s == 0) {
        next.read(map);
      } else {
        float odd[kNumbers] = {};
#pragma unroll
        for (int k = 0; k < kOrder; ++k) {
#pragma unroll
          for (int i = 0; i < kNumbers; i += kPack) {
            float entries[kPack];
            cuda::load<kPack>(map + entry_at<kOrder>(k, column + i), entries);
#pragma unroll
            for (int j = 0; j < kPack; ++j) {
              float& sum = k % 2 == 0 ? next.number[i + j] : odd[i + j];
              sum = fmaf(before[k], entries[j], sum);
            }
          }
        }
#pragma unroll
        for (int i = 0; i < kNumbers; ++i) next.number[i] += odd[i];
      }
      if constexpr (kSize < kWarpLanes) __syncwarp();  // several lanes have read what one of them may overwrite
      leave(s, carry, next);
      carry = next;
    }
    lost = sound && !is_finite(carry.number);
    return carry;
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

/// How far a segment may reach so that as many tiles fit where one may.
template <class Place>
constexpr int most_steps_log2(int copies) {
  int steps_log2 = 0;
  while ((Place::kSegments * Place::kSize * copies << (steps_log2 + 1)) <= Place::kShape.numbers) ++steps_log2;
  return steps_log2;
}

}  // namespace monoid::cuda

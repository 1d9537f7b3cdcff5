#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "monoid/kernels/attention.h"
#include "monoid/kernels/cuda/device/approximate.cuh"
#include "monoid/kernels/cuda/device/async_copy.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"

// What the kernels of attention share: where heads lie, which keys a query sees, which weights are dropped.

namespace monoid::cuda {

inline constexpr float kLog2e = 1.44269504f, kLn2 = 0.69314718f;
inline constexpr float kInfinite = std::numeric_limits<float>::infinity();

/// The rows of one head of one sequence, `step` elements apart; `wide` where sixteen bytes move at a time.
template <class T>
struct HeadRows {
  T* data;
  int64_t step;
  int channels;
  bool wide;
};

/// A [batch, time, head, channel] tensor with adjacent channels; an undefined one has none.
template <class T>
struct Heads {
  template <class Base>
  explicit Heads(Base& x) : data(address_of<std::remove_const_t<T>>(x)) {
    if (!data) return;
    constexpr int kPack = kWide<std::remove_const_t<T>>;
    batch_step = x.strides()[0], time_step = x.strides()[1], head_step = x.strides()[2];
    channels = static_cast<int>(x.size(3));
    wide = channels % kPack == 0 && aligned_for<kPack>(data, batch_step) && time_step % kPack == 0 &&
           head_step % kPack == 0;
  }
  __device__ HeadRows<T> rows(int batch, int head) const {
    return {data ? data + batch * batch_step + head * head_step : nullptr, time_step, channels, wide};
  }

  T* data;
  int64_t batch_step = 0, time_step = 0, head_step = 0;
  int channels = 0;
  bool wide = false;
};

/// Keys first .. end - 1, in registers.
struct Stretch {
  int first, end;
  __device__ bool has(int key) const { return key >= first && key < end; }
};

/// What a call computes, besides its tensors.
struct AttentionCall {
  AttentionCall(const Tensor& q, const Tensor& k, const Tensor& first_key, const Tensor& end_key,
                const AttentionSpec& spec)
      : batch(static_cast<int>(q.size(0))),
        queries(static_cast<int>(q.size(1))),
        keys(static_cast<int>(k.size(1))),
        heads(static_cast<int>(q.size(2))),
        key_heads(static_cast<int>(k.size(2))),
        group(key_heads > 0 ? heads / key_heads : 1),
        first_keys(address_of<int32_t>(first_key)),
        end_keys(address_of<int32_t>(end_key)),
        mask(spec.mask),
        scale(static_cast<float>(spec.scale)),
        scale_log2(static_cast<float>(spec.scale * 1.4426950408889634)),
        lowest_kept(static_cast<uint32_t>(std::ceil(spec.dropout * 0x1p24))),
        kept_scale(spec.dropout < 1 ? static_cast<float>(1 / (1 - spec.dropout)) : 0.f),
        seed(spec.seed),
        first(spec.first),
        base(address_of<int64_t>(spec.base)) {}

  int batch, queries, keys, heads, key_heads, group;
  const int32_t *first_keys, *end_keys;
  AttentionMask mask;
  float scale, scale_log2;
  uint32_t lowest_kept;  // of 24 random bits
  float kept_scale;
  uint64_t seed, first;
  const int64_t* base;
};

/// Which keys the queries of one sequence see. Both ends of what a query sees only ever grow with its position.
struct Sequence {
  __device__ Sequence(const AttentionCall& call, int batch) : mask(call.mask), queries(call.queries) {
    first = call.first_keys ? max(call.first_keys[batch], 0) : 0;
    end = call.end_keys ? min(max(call.end_keys[batch], 0), call.keys) : call.keys;
  }

  /// What one query sees.
  __device__ Stretch seen(int query) const {
    if (query >= queries) return {0, 0};
    const KeyRange range = mask.range(end - queries + query, end);
    return {max(static_cast<int>(range.first), first), min(static_cast<int>(range.end), end)};
  }
  /// What the queries begin .. last see together, and what all of them see.
  __device__ Stretch together(int begin, int last) const {
    const int earliest = mask.kind == AttentionMask::Kind::full ? begin : max(begin, queries - end);
    if (earliest > last) return {0, 0};
    return {seen(earliest).first, seen(last).end};
  }
  __device__ Stretch common(int begin, int last) const { return {seen(last).first, seen(begin).end}; }

  /// The queries that see any of the keys begin .. last.
  __device__ Stretch seeing(int begin, int last) const {
    begin = max(begin, first), last = min(last, end - 1);
    if (begin > last) return {0, 0};
    return {first_query([&](int query) { return seen(query).end > begin; }),
            first_query([&](int query) { return seen(query).end > begin && seen(query).first > last; })};
  }

  AttentionMask mask;
  int queries, first, end;

 private:
  /// The first query for which something holds that then holds for all later ones.
  template <class Holds>
  __device__ int first_query(Holds holds) const {
    int low = 0, high = queries;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (holds(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};

/// Element i of lane (a, b) of four becomes element (a, b) of lane i, where a and b are the bits of the lane number at
/// kNear and 2 kNear: sixteen bytes side by side come together in one lane.
template <int kNear>
__device__ __forceinline__ void transpose_four(uint32_t (&x)[4]) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = lane & (kNear * bit);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const uint32_t received = __shfl_xor_sync(kAllLanes, upper ? x[i] : x[i | bit], kNear * bit);
      x[i] = upper ? received : x[i];
      x[i | bit] = upper ? x[i | bit] : received;
    }
  }
}

/// Rows first .. first + kRows of a head into a tile of shared memory: zeros outside the rows of `within` and beyond
/// the channels. Wide rows arrive with the group of copies, others at once.
template <int kThreads, class Tile, class T>
__device__ __forceinline__ void load_tile(const Tile& tile, const HeadRows<const T>& rows, int first, Stretch within) {
  constexpr int kPack = kWide<T>, kPacks = Tile::kChannels / kPack, kStep = kThreads / kPacks;
  static_assert(kThreads % kPacks == 0);
  const int pack = static_cast<int>(threadIdx.x) % kPacks * kPack, begin = static_cast<int>(threadIdx.x) / kPacks;
  if (rows.wide) {
    const bool is_channel = pack < rows.channels;
    const T* from = rows.data + (first + begin) * rows.step + pack;
    const int64_t step = kStep * rows.step;
#pragma unroll
    for (int r = 0; r < Tile::kRows; r += kStep) {
      const bool exists = within.has(first + begin + r) && is_channel;
      if (Tile::kRows % kStep == 0 || begin + r < Tile::kRows)
        copy_async(tile.at(begin + r, pack), exists ? from : rows.data, exists);
      from += step;
    }
    return;
  }
  for (int r = begin; r < Tile::kRows; r += kStep) {
    const T* const from = rows.data + (first + r) * rows.step + pack;
    Pack<T, kPack> values{};
    for (int i = 0; i < kPack; ++i)
      if (within.has(first + r) && pack + i < rows.channels) values.lanes[i] = from[i];
    *reinterpret_cast<Pack<T, kPack>*>(tile.at(r, pack)) = values;
  }
}

/// kPack elements of a row, fewer at its end.
template <int kPack, class T>
__device__ __forceinline__ void store_pack(const HeadRows<T>& rows, int row, int channel, const Raw<T, kPack>& values) {
  T* const to = rows.data + row * rows.step + channel;
  if (rows.wide) {
    if (channel < rows.channels) store_raw(to, values);
  } else {
    for (int i = 0; i < kPack; ++i)
      if (channel + i < rows.channels) to[i] = narrow<T>(values[i]);
  }
}

/// Calls body.operator()<kHead>() for the smallest size of heads there are kernels for.
template <class Body>
void dispatch_head(int64_t channels, Body&& body) {
  check(channels <= 256, "attention: heads have ", channels, " channels, CUDA kernels take up to 256; use more heads");
  if (channels <= 32) return body.template operator()<32>();
  if (channels <= 64) return body.template operator()<64>();
  if (channels <= 128) return body.template operator()<128>();
  return body.template operator()<256>();
}

}  // namespace monoid::cuda

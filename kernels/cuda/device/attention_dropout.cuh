#pragma once

#include "monoid/core/random.h"
#include "monoid/kernels/cuda/device/attention_tile.cuh"

// Dropout of attention weights: the random words of kernels/attention.h, drawn by the lanes that hold the weights.

namespace monoid::cuda {

/// Which weights of one head of one sequence are lost.
struct Losses {
  __device__ Losses(const AttentionCall& call, int sequence_and_head)
      : seed(call.seed),
        row(AttentionSpec::dropout_row(call.first + (call.base ? static_cast<uint64_t>(*call.base) : 0),
                                       sequence_and_head, 0, call.queries, call.keys)),
        row_step(static_cast<uint64_t>((call.keys + 3) / 4 * 4)),
        lowest_kept(call.lowest_kept) {}

  /// Random words of the four keys from `key`, a multiple of four, on.
  __device__ __forceinline__ std::array<uint32_t, 4> words(int query, int key) const {
    return philox(seed, (row + static_cast<uint64_t>(query) * row_step + static_cast<uint64_t>(key)) / 4);
  }
  __device__ __forceinline__ bool kept(uint32_t word) const { return word >> 8 >= lowest_kept; }
  __device__ __forceinline__ bool kept(int query, int key) const {
    const auto four = words(query, key & ~3);
    return kept(key & 2 ? (key & 1 ? four[3] : four[2]) : (key & 1 ? four[1] : four[0]));
  }

  uint64_t seed, row, row_step;
  uint32_t lowest_kept;
};

/// What the rows of a tile of scores are.
enum class Side { queries, keys };

/// Calls visit(i, j, whether it is kept) for the weights of a warp, whose first is that of `query` and `key`.
template <class T, Side kRowSide, int kColumns, class Visit>
__device__ __forceinline__ void for_each_weight(const Losses& losses, int query, int key, Visit visit) {
  using P = Products<T>;
  constexpr int kHeld = P::kHeld, kEach = kColumns / P::kSharing;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if constexpr (!P::kFourKeys) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        visit(i, j,
              kRowSide == Side::queries ? losses.kept(query + P::row(i), key + P::column(j))
                                        : losses.kept(query + P::column(j), key + P::row(i)));
  } else if constexpr (kRowSide == Side::queries) {
    // Of two neighbours, who share four keys, the even lane draws for the upper row and the odd one for the lower.
    const bool odd = lane & 1;
#pragma unroll
    for (int j = 0; j < kEach; j += 2) {
      const auto words = losses.words(query + P::row(odd), key + (P::column(j) & ~3));
      const uint32_t first = __shfl_xor_sync(kAllLanes, odd ? words[0] : words[2], 1);
      const uint32_t second = __shfl_xor_sync(kAllLanes, odd ? words[1] : words[3], 1);
      visit(0, j, losses.kept(odd ? first : words[0]));
      visit(0, j + 1, losses.kept(odd ? second : words[1]));
      visit(1, j, losses.kept(odd ? words[2] : first));
      visit(1, j + 1, losses.kept(odd ? words[3] : second));
    }
  } else {
    // Four lanes hold four keys of the same two queries, in the upper rows and the lower: one draw each.
    const int drawn = lane / 4 % 4;
#pragma unroll
    for (int j = 0; j < kEach; j += 2) {
      const auto words = losses.words(query + P::column(j) + drawn % 2, key + (P::row(drawn / 2) & ~3));
      uint32_t mine[4] = {words[0], words[1], words[2], words[3]};
      transpose_four<4>(mine);
#pragma unroll
      for (int e = 0; e < 4; ++e) visit(e / 2, j + e % 2, losses.kept(mine[e]));
    }
  }
}

}  // namespace monoid::cuda

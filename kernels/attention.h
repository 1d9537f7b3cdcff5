#pragma once

#include <algorithm>

#include "monoid/core/kernel.h"
#include "monoid/kernels/host_device.h"

namespace monoid {

/// Keys first .. end - 1.
struct KeyRange {
  int64_t first, end;
};

/// Which keys a query sees: always one stretch of them. Positions count along the keys, and the last query stands at
/// the last key, so that with fewer queries than keys all that came before is visible.
struct AttentionMask {
  enum class Kind { full, causal, window, blocks };

  Kind kind = Kind::full;
  int64_t width = 0;

  /// Every key.
  static constexpr AttentionMask full() { return {}; }
  /// The keys up to the query's own position.
  static constexpr AttentionMask causal() { return {Kind::causal, 0}; }
  /// The last `width` of these, the query's own among them.
  static constexpr AttentionMask window(int64_t width) { return {Kind::window, width}; }
  /// Block-recurrent: causal inside the query's block of `width` positions, and all of the block before it.
  static constexpr AttentionMask blocks(int64_t width) { return {Kind::blocks, width}; }

  /// What the query at `position` sees of `keys` keys; empty where first >= end.
  MONOID_HOST_DEVICE constexpr KeyRange range(int64_t position, int64_t keys) const {
    if (kind == Kind::full) return {0, keys};
    if (position < 0) return {0, 0};
    const int64_t end = position + 1 < keys ? position + 1 : keys;
    int64_t first = 0;
    if (kind == Kind::window) first = position + 1 - width;
    if (kind == Kind::blocks) first = position / width * width - width;
    return {first > 0 ? first : 0, end};
  }
};

/// What an attention computes, besides its tensors.
struct AttentionSpec {
  AttentionMask mask;
  double scale = 1;    // of q . k
  double dropout = 0;  // probability of losing a weight, after the softmax
  uint64_t seed = 0, first = 0;
  Tensor base = {};  // i64 [] on the device, or undefined for 0: as in kernels/dropout.h

  /// The weight of key j for query i of head h of sequence b is lost where uniform_unit(random_bits(seed, base +
  /// index)) < dropout. Rows of keys begin at multiples of four, so that four neighbours share a block of the stream.
  MONOID_HOST_DEVICE static constexpr uint64_t dropout_row(uint64_t first, int64_t sequence_and_head, int64_t query,
                                                           int64_t queries, int64_t keys) {
    return first + static_cast<uint64_t>((sequence_and_head * queries + query) * ((keys + 3) / 4 * 4));
  }
};

// Scaled dot-product attention over q [batch, query, head, channel], k [batch, key, key_head, channel] and v [batch,
// key, key_head, value_channel], with head a multiple of key_head: heads g * (head / key_head) .. share key head g.
// Tensors may be strided views whose channels are adjacent, gradients too. Sequence b's keys are those from
// first_key[b] up to end_key[b] (i32 [batch], or undefined for 0 and `key`); the last query stands at key end_key[b]
// - 1.
//
// The matrix of scores [query, key] is never stored. Rows that see no key give output 0, log_sum_exp -inf and gradients
// 0. log_sum_exp is [batch, head, query], f32, or f64 for f64.

/// output [batch, query, head, value_channel] = softmax(scale q . k) v, and the logarithm of each row's sum of
/// exp(scale q . k).
using Attention = void(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key,
                       const Tensor& end_key, const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp);

/// dS = P * (dP - rowsum(dO * O) + dL), from the cotangents dO of the output and dL of log_sum_exp; dL may be undefined
/// (zero), as may gradients that are not wanted. Every element of the others is written.
using AttentionGradient = void(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key,
                               const Tensor& end_key, const AttentionSpec& spec, const Tensor& output,
                               const Tensor& log_sum_exp, const Tensor& output_cotangent,
                               const Tensor& log_sum_exp_cotangent, Tensor& q_gradient, Tensor& k_gradient,
                               Tensor& v_gradient);

namespace kernels {
inline constinit Kernel<Attention> attention{"attention"};
inline constinit Kernel<AttentionGradient> attention_gradient{"attention_gradient"};
}  // namespace kernels

namespace cpu {
Attention attention;
AttentionGradient attention_gradient;
}  // namespace cpu

namespace cuda {
Attention attention;
AttentionGradient attention_gradient;
}  // namespace cuda

}  // namespace monoid

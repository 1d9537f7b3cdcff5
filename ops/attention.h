#pragma once

#include <optional>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/kernels/attention.h"
#include "monoid/kernels/rotary.h"

namespace monoid {

struct AttentionOptions {
  AttentionMask mask = AttentionMask::causal();
  /// Of q . k; unset: 1 / sqrt(channel).
  std::optional<double> scale = {};
  /// i32 [batch]: how many keys at the left of each sequence are padding; undefined: none.
  Tensor first_key = {};
  /// i32 [batch]: where each sequence's keys end, for caches with room left; undefined: all are there.
  Tensor end_key = {};
  /// Probability of losing a weight; needs a generator.
  double dropout = 0;
  Generator* generator = nullptr;
};

struct AttentionResult {
  Tensor output;       // [batch, query, head, value_channel]
  Tensor log_sum_exp;  // [batch, head, query], f32 (f64 for f64); differentiable
};

/// Softmax attention in memory linear in time (Dao et al., "FlashAttention-2", 2023): q [batch, query, head, channel],
/// k [batch, key, key_head, channel], v [batch, key, key_head, value_channel], of one dtype and device. `head` is a
/// multiple of `key_head` (grouped-query attention; 1: multi-query). Views with adjacent channels are taken as they
/// are. A row that sees no key gives 0 and no gradients.
AttentionResult attention_with_sums(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& options = {});
/// The output alone.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});

/// How queries and keys are rotated before they meet: by tables of ops/rotary.h, mostly one and the same.
struct AttentionRotary {
  Tensor queries, keys;
  RotaryPairs pairs = RotaryPairs::interleaved;
  RotaryPositions at = {};
};

/// Self-attention from one projection [batch, time, (heads + 2 key_heads) * channel], queries first, then keys, then
/// values: [batch, time, heads * channel]. Each part of the projection's gradient is written where it belongs, so there
/// is nothing to join in backward; with `rotary`, queries and keys are rotated on the way.
Tensor packed_attention(const Tensor& projection, int64_t heads, int64_t key_heads,
                        const AttentionOptions& options = {}, const AttentionRotary& rotary = {});

}  // namespace monoid

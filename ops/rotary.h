#pragma once

#include <vector>

#include "monoid/core/tape.h"
#include "monoid/kernels/rotary.h"

namespace monoid {

// Rotary position embeddings (Su et al., "RoFormer", 2021). Angles are computed in f64 and then rounded: in f32 the
// angle of position 65,536 would be off by 4e-3.

/// How frequencies are stretched for sequences longer than those trained on.
struct RotaryScaling {
  enum class Kind { none, linear, dynamic };
  Kind kind = Kind::none;
  double factor = 1;
  int64_t trained_time = 0;  // dynamic: up to here nothing changes
};

/// theta^(-2i / rotated) for i < rotated / 2, f64 [pair]. Linear scaling divides them by the factor; dynamic scaling
/// ("NTK-aware") raises theta for sequences of `time` > trained_time.
Tensor rotary_frequencies(int64_t rotated, double theta = 10000, const RotaryScaling& scaling = {}, int64_t time = 0);

/// A table [2, position, pair] of cos and sin(position * frequency): what rotary() takes. f64 for f64 operands, else
/// f32.
Tensor rotary_table(const Tensor& frequencies, int64_t positions, DType dtype = DType::f32, Device device = kCpu);

/// xPos (Sun et al., "A length-extrapolatable transformer", 2022): queries grow and keys shrink with their position, so
/// that products decay with distance. The factor of pair i at position t is decay_i^p, p = (t - center) / unit.
struct XPos {
  Tensor frequencies;         // f32 or f64 [pair]
  std::vector<double> decay;  // one a pair
  double center = 0, unit = 512;
  bool angle_of_p = false;  // angles are p * frequency rather than t * frequency
};
struct XPosTables {
  Tensor queries, keys;
};
XPosTables xpos_tables(const XPos& form, int64_t positions, DType dtype = DType::f32, Device device = kCpu);

/// The form for `positions` of a Block-Recurrent Transformer: decay (2i + 0.4 d) / (1.4 d), centred on the table.
XPos block_recurrent_xpos(int64_t rotated, int64_t positions, double theta = 10000);
/// The form of MRU-LM: interleaved, frequencies 10000^(-i / d) and decay (i / (d / 2) + 0.4 d) / (1 + 0.4 d) for i = 2,
/// 4, ..., d, and p in the angle too.
XPos mru_xpos(int64_t rotated, int64_t positions);

/// x [batch, time, head, channel] with the first 2 * pair channels of every head rotated by the rows of a table, the
/// others as they are. Views with adjacent channels are taken as they are. Differentiable in x. A position outside of
/// the table is an Error.
Tensor rotary(const Tensor& x, const Tensor& table, RotaryPairs pairs, const RotaryPositions& at = {});

/// What rotary() checks, for ops that rotate inside; returns the positions as the kernel takes them.
RotaryPositions check_rotary(const Tensor& x, const Tensor& table, const RotaryPositions& at);

}  // namespace monoid

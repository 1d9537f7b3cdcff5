#pragma once

#include "monoid/core/random.h"

namespace monoid {

// Trained tensors at their random start: f32 on the CPU, so that one seed gives the same model everywhere.

/// Uniform in [-bound, bound).
Tensor uniform_parameter(const Shape& shape, double bound, Generator& init);
/// Uniform in +-1/sqrt(fan_in): PyTorch's default for Linear and Conv, weight and bias (kaiming_uniform, a = sqrt 5).
Tensor fan_in_parameter(const Shape& shape, int64_t fan_in, Generator& init);
/// Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, "Understanding the difficulty of training deep
/// feedforward neural networks", 2010), for a weight [out, in].
Tensor xavier_parameter(int64_t out, int64_t in, Generator& init);
Tensor normal_parameter(const Shape& shape, double deviation, Generator& init);
Tensor constant_parameter(const Shape& shape, double value);

/// Whether an affine layer adds a learned vector.
enum class Bias { none, learned };

/// A bias that starts from zero, or none.
Tensor zero_bias(int64_t extent, Bias bias);

}  // namespace monoid

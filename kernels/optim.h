#pragma once

#include <cstdint>
#include <span>

#include "monoid/core/kernel.h"

namespace monoid {

/// What is the same for every parameter of an update.
struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  bool decoupled = true;  // decay multiplies the parameter; otherwise it is an L2 term in the gradient
};

/// One parameter of an update, with all that belongs to it; contiguous, of one shape.
struct AdamWItem {
  Tensor parameter, gradient;  // of one dtype: f32, f64, or bf16 with a master
  Tensor master;               // f32: the number that a bf16 parameter is rounded from; undefined otherwise
  Tensor mean, mean_square;    // f32; f64 for f64
  int64_t place = 0;           // its count is counts[place]
  int64_t group = 0;           // its gradient is multiplied by scales[group]
  double learning_rate_scale = 1;
  double weight_decay = 0;
};

/// counts[place] (f64) += 1 for every item, then one pass over all of them:
///   g = scales[group] gradient;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
///   p = (1 - rate decay) p - rate / (1 - beta1^count) m / (sqrt(v) / sqrt(1 - beta2^count) + epsilon)
/// learning_rate is f64 []; scales is f64 [groups] or undefined for 1. A group whose scale is NaN is left as it is.
using AdamWUpdate = void(Tensor& counts, const Tensor& learning_rate, const Tensor& scales,
                         std::span<const AdamWItem> items, const AdamWSettings& settings);

/// A gradient and the group it counts for; contiguous.
struct GradientItem {
  Tensor gradient;
  int64_t group = 0;
};

/// norms [groups + 1] (f64): the norm of each group's gradients, then of all, from squares summed in double in an order
/// that depends on the shapes alone. scales [groups] (f64) = min(1, limit / (norm + 1e-6)), NaN where a norm is not
/// finite. `limits` holds one number a group, or one for all together; 0 limits nothing.
using GradientNorms = void(Tensor& norms, Tensor& scales, std::span<const GradientItem> items,
                           std::span<const double> limits);

namespace kernels {
inline constinit Kernel<AdamWUpdate> adamw{"adamw"};
inline constinit Kernel<GradientNorms> gradient_norms{"gradient_norms"};
}  // namespace kernels

namespace cpu {
AdamWUpdate adamw;
GradientNorms gradient_norms;
}  // namespace cpu

namespace cuda {
AdamWUpdate adamw;
GradientNorms gradient_norms;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include <cstdint>

#include "monoid/core/kernel.h"

namespace monoid {

/// The numbers of one AdamW update, made on the host in double.
struct AdamWScalars {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double keep = 1;                  // decoupled decay: the parameter is multiplied by 1 - learning rate * decay
  double l2 = 0;                    // or, coupled, l2 * parameter is added to the gradient
  double step_size = 0;             // learning rate / (1 - beta1^step)
  double root_bias_correction = 1;  // sqrt(1 - beta2^step)
};

/// One pass over a parameter, its gradient and both moments; all contiguous and of one shape and dtype.
using AdamWUpdate = void(Tensor& parameter, const Tensor& gradient, Tensor& mean, Tensor& mean_square,
                         const AdamWScalars& scalars);
/// sums[index] (f64) = sum of x^2, accumulated in double in an order that depends on the shape alone. x is contiguous.
using SumOfSquares = void(const Tensor& x, Tensor& sums, int64_t index);

namespace kernels {
inline constinit Kernel<AdamWUpdate> adamw{"adamw"};
inline constinit Kernel<SumOfSquares> sum_of_squares{"sum_of_squares"};
}  // namespace kernels

namespace cpu {
AdamWUpdate adamw;
SumOfSquares sum_of_squares;
}  // namespace cpu

namespace cuda {
AdamWUpdate adamw;
SumOfSquares sum_of_squares;
}  // namespace cuda

}  // namespace monoid

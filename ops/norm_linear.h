#pragma once

#include "monoid/core/tensor.h"
#include "monoid/kernels/decoding.h"

namespace monoid {

/// A linear of a normed stream, and the stream.
struct LinearAndSum {
  Tensor output;
  Tensor sum;
};

/// activation(linear(n, weight, bias)) with n, and the stream that goes on, from add_rms_norm(x, {}, norm_weight, eps):
/// what a layer does first on a residual stream. The same as these ops, one after the other; while nothing records, a
/// few rows on a GPU take a single kernel.
LinearAndSum rms_norm_linear(const Tensor& x, const Tensor& norm_weight, double eps, const Tensor& weight,
                             const Tensor& bias = {}, Activation activation = Activation::none);

}  // namespace monoid

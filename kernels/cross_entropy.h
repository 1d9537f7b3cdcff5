#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// Cross-entropy of rows of logits [..., classes] (contiguous rows, any strides between them) with targets [...], i64
// and contiguous. Rows whose target is ignore_index have loss and gradient 0; a target outside [0, classes) is an
// Error that names it. Smoothing e mixes the target with the uniform distribution: (1 - e) onehot + e / classes.

/// losses [rows] = log(sum(exp(x))) - (1 - e) x[target] - e mean(x); statistics [rows, 2] = max(x) and
/// 1 / sum(exp(x - max(x))), or 0 in a row of nothing but -infinity, whose loss is infinity.
using CrossEntropy = void(const Tensor& logits, const Tensor& targets, int64_t ignore_index, double smoothing,
                          Tensor& losses, Tensor& statistics);
/// total [] = sum of the losses times scale [] (f64), which is 1 or, for a mean, 1 / rows that count (0 without any).
using CrossEntropyTotal = void(const Tensor& losses, const Tensor& targets, int64_t ignore_index, bool mean,
                               Tensor& total, Tensor& scale);
/// dlogits = (softmax(x) - (1 - e) onehot - e / classes) * dlosses * scale. dlosses is [rows] of any stride, 0 for one
/// number; an undefined scale is 1.
using CrossEntropyGradient = void(const Tensor& logits, const Tensor& targets, const Tensor& statistics,
                                  const Tensor& dlosses, const Tensor& scale, int64_t ignore_index, double smoothing,
                                  Tensor& dlogits);

namespace kernels {
inline constinit Kernel<CrossEntropy> cross_entropy{"cross_entropy"};
inline constinit Kernel<CrossEntropyTotal> cross_entropy_total{"cross_entropy_total"};
inline constinit Kernel<CrossEntropyGradient> cross_entropy_gradient{"cross_entropy_gradient"};
}  // namespace kernels

namespace cpu {
CrossEntropy cross_entropy;
CrossEntropyTotal cross_entropy_total;
CrossEntropyGradient cross_entropy_gradient;
}  // namespace cpu

namespace cuda {
CrossEntropy cross_entropy;
CrossEntropyTotal cross_entropy_total;
CrossEntropyGradient cross_entropy_gradient;
}  // namespace cuda

}  // namespace monoid

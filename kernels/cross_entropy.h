#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// Cross-entropy of rows of logits [..., classes] (contiguous rows, any strides between them) with targets [...], i64
// and contiguous. Rows whose target is ignore_index have loss and gradient 0; a target outside [0, classes) is an
// Error that names it. Smoothing e mixes the target with the uniform distribution: (1 - e) onehot + e / classes.
// Losses, statistics and the cotangents of losses have the dtype of the logits, f32 for bf16.

/// counted [] = how many targets are not ignore_index, i64.
using CrossEntropyCount = void(const Tensor& targets, int64_t ignore_index, Tensor& counted);
/// losses [rows] = log(sum(exp(x))) - (1 - e) x[target] - e mean(x). statistics [rows, 2], unless undefined, = max(x)
/// and 1 / sum(exp(x - max(x))), or 0 in a row of nothing but -infinity, whose loss is infinity. dlogits, unless
/// undefined, is the gradient of the sum of the losses divided by counted (0 for 0; undefined is 1), while the row is
/// at hand.
using CrossEntropy = void(const Tensor& logits, const Tensor& targets, const Tensor& counted, int64_t ignore_index,
                          double smoothing, Tensor& losses, Tensor& statistics, Tensor& dlogits);
/// total [] = sum of the losses divided by counted (0 for 0; undefined is 1).
using CrossEntropyTotal = void(const Tensor& losses, const Tensor& counted, Tensor& total);
/// dlogits *= dtotal [], which is nearly always 1 and then costs nothing.
using CrossEntropyRescale = void(const Tensor& dtotal, Tensor& dlogits);
/// dlogits = (softmax(x) - (1 - e) onehot - e / classes) * dlosses [rows].
using CrossEntropyGradient = void(const Tensor& logits, const Tensor& targets, const Tensor& statistics,
                                  const Tensor& dlosses, int64_t ignore_index, double smoothing, Tensor& dlogits);

namespace kernels {
inline constinit Kernel<CrossEntropyCount> cross_entropy_count{"cross_entropy_count"};
inline constinit Kernel<CrossEntropy> cross_entropy{"cross_entropy"};
inline constinit Kernel<CrossEntropyTotal> cross_entropy_total{"cross_entropy_total"};
inline constinit Kernel<CrossEntropyRescale> cross_entropy_rescale{"cross_entropy_rescale"};
inline constinit Kernel<CrossEntropyGradient> cross_entropy_gradient{"cross_entropy_gradient"};
}  // namespace kernels

namespace cpu {
CrossEntropyCount cross_entropy_count;
CrossEntropy cross_entropy;
CrossEntropyTotal cross_entropy_total;
CrossEntropyRescale cross_entropy_rescale;
CrossEntropyGradient cross_entropy_gradient;
}  // namespace cpu

namespace cuda {
CrossEntropyCount cross_entropy_count;
CrossEntropy cross_entropy;
CrossEntropyTotal cross_entropy_total;
CrossEntropyRescale cross_entropy_rescale;
CrossEntropyGradient cross_entropy_gradient;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

// Reads and writes at places that an i32 or i64 tensor names. An index out of range is an Error that gives its value
// and position. Gradients visit the places in a fixed order, each from one thread: no atomics, the same bits always.

/// result[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`; `index` is contiguous and has the shape of result.
using Gather = void(const Tensor& x, int axis, const Tensor& index, Tensor& result);
/// dx[.., index[.., i, ..], ..] += dy[.., i, ..], the transpose of Gather, for a zeroed contiguous dx.
using GatherGradient = void(const Tensor& dy, int axis, const Tensor& index, Tensor& dx);
/// result[n, :] = weight[tokens[n], :]; rows of both are dense, tokens [n] contiguous.
using Embedding = void(const Tensor& weight, const Tensor& tokens, Tensor& result);
/// dweight[tokens[n], :] += dy[n, :], for a zeroed dweight; rows of both are dense.
using EmbeddingGradient = void(const Tensor& dy, const Tensor& tokens, Tensor& dweight);

namespace kernels {
inline constinit Kernel<Gather> gather{"gather"};
inline constinit Kernel<GatherGradient> gather_gradient{"gather_gradient"};
inline constinit Kernel<Embedding> embedding{"embedding"};
inline constinit Kernel<EmbeddingGradient> embedding_gradient{"embedding_gradient"};
}  // namespace kernels

namespace cpu {
Gather gather;
GatherGradient gather_gradient;
Embedding embedding;
EmbeddingGradient embedding_gradient;
}  // namespace cpu

namespace cuda {
Gather gather;
GatherGradient gather_gradient;
Embedding embedding;
EmbeddingGradient embedding_gradient;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/kernels/attention.h"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {

/// Into how many parts attention's backward deals the heads that share a single key head, so that the key side has work
/// for every multiprocessor. 1: it does well as it is.
int64_t parts_of_heads(const Launch& launch, const Tensor& q, const Tensor& k);

/// The same gradients: each part makes those of keys and values for itself, and they are added up.
AttentionGradient attention_gradient_in_parts;

}  // namespace monoid::cuda

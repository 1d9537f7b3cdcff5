#pragma once

#include "monoid/kernels/attention.h"

namespace monoid::cuda {

/// Whether attention is of few queries over many keys, so that its time is that of reading the keys and values once.
bool decodes(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& spec);

/// Attention in that case, with many blocks over the keys of one query.
void attention_decode(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
                      const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp);

}  // namespace monoid::cuda

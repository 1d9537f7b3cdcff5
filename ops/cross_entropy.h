#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

enum class Reduction { mean, sum, none };

struct CrossEntropyOptions {
  int64_t ignore_index = -100;  // rows with this target have loss and gradient 0, and a mean does not count them
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;  // e in [0, 1]: the target becomes (1 - e) onehot + e / classes
};

/// -log(softmax(logits)[target]) in nats, as torch.nn.functional.cross_entropy: logits [..., classes] in f32 or f64 on
/// the CPU, f32 or bf16 on CUDA, targets [...] in i32 or i64; the result is a scalar, or [...] without a reduction, in
/// f32 for bf16 logits. A target that is neither a class nor ignore_index is an Error naming its position. Where
/// PyTorch's mean over no rows is 0 / 0 = NaN, this is 0 with zero gradients. A row of nothing but -infinity has loss
/// infinity and gradient 0.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options = {});

}  // namespace monoid

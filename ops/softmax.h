#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

/// exp(x) / sum(exp(x)) along one axis, of the shape of x; f32 or f64 on the CPU. The last axis is native, another one
/// is transposed into place and the result is a transposed view. Any magnitude is safe. A row of nothing but -infinity
/// gives zeros with a zero gradient; +infinity takes the whole row, as in the limit.
Tensor softmax(const Tensor& x, int axis = -1);

/// log(softmax(x)), without losing small probabilities. A row of nothing but -infinity stays so, with a zero gradient.
Tensor log_softmax(const Tensor& x, int axis = -1);

}  // namespace monoid

#pragma once

#include "monoid/core/tensor.h"

// What the scans ask of their arguments.

namespace monoid {

/// [batch, time, channel], or with a trailing axis of 2 complex numbers: whatever is inside a step adjacent, positive
/// strides.
void check_sequence(const char* op, const char* argument, const Tensor& x, int parts = 1);

/// Rows a kernel can read: the last axis adjacent. Only a cotangent or a small state is ever copied.
Tensor readable(const Tensor& x);
/// The same as one block.
Tensor dense(const Tensor& x);

/// The gradient of an initial state that wants one.
Tensor gradient_of(const Tensor& initial);

}  // namespace monoid

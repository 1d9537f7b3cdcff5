#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

/// Rows of a table: weight [rows, channel] and tokens [...] of i32 or i64 give [..., channel]. A token outside
/// [0, rows) is an Error that names it and its position. The gradient adds up in a fixed order, without atomics.
Tensor embedding(const Tensor& weight, const Tensor& tokens);

}  // namespace monoid

#pragma once

#include "monoid/core/tensor.h"

namespace monoid {

// Reductions compute in f32 or f64, over any strides, in an order that depends on the shape alone: the same bits for
// any number of threads. Negative axes count from the end; `keep` leaves the reduced axis with extent 1.

/// The sum of all elements (rank 0), or along one axis. 0 where there is nothing to add.
Tensor sum(const Tensor& x);
Tensor sum(const Tensor& x, int axis, bool keep = false);

/// Undoes a broadcast: sums x over the axes that numpy's rules would have added or grown to get from `shape` to x.
Tensor sum_to(const Tensor& x, const Shape& shape);

}  // namespace monoid

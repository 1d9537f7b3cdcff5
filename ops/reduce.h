#pragma once

#include <cstdint>

#include "monoid/core/tensor.h"

namespace monoid {

// Reductions compute in f32 or f64, over any strides, in an order that depends on the shape alone: the same bits for
// any number of threads. Negative axes count from the end; `keep` leaves the reduced axis with extent 1.

/// The sum of all elements (rank 0), or along one axis. 0 where there is nothing to add.
Tensor sum(const Tensor& x);
Tensor sum(const Tensor& x, int axis, bool keep = false);

/// The mean of all elements, or along one axis. NaN where there are none.
Tensor mean(const Tensor& x);
Tensor mean(const Tensor& x, int axis, bool keep = false);

/// The mean square distance from the mean, in two passes; divides by (extent - correction): 0 describes the data, 1
/// estimates what they were drawn from. NaN where that is not positive.
Tensor variance(const Tensor& x);
Tensor variance(const Tensor& x, int axis, bool keep = false, int64_t correction = 0);

/// The largest or smallest element; NaN if there is one, an Error where there are no elements. The gradient goes to
/// the first of equal elements.
Tensor max(const Tensor& x);
Tensor max(const Tensor& x, int axis, bool keep = false);
Tensor min(const Tensor& x);
Tensor min(const Tensor& x, int axis, bool keep = false);

/// i64 index of the first largest or smallest element along an axis, or of the first NaN.
Tensor argmax(const Tensor& x, int axis, bool keep = false);
Tensor argmin(const Tensor& x, int axis, bool keep = false);

/// log(sum(exp(x))) for any magnitude of x; -infinity with a zero gradient where all of x is.
Tensor logsumexp(const Tensor& x);
Tensor logsumexp(const Tensor& x, int axis, bool keep = false);

/// Undoes a broadcast: sums x over the axes that numpy's rules would have added or grown to get from `shape` to x.
Tensor sum_to(const Tensor& x, const Shape& shape);

}  // namespace monoid

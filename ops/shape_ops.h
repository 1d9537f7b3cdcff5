#pragma once

#include <cstdint>
#include <vector>

#include "monoid/core/tape.h"

namespace monoid {

// Ops that move elements and compute nothing; any dtype, any strides. Negative axes count from the end. The first
// group returns views: they share the storage of `x` and cost nothing.

/// The elements of x, in row-major order, under another shape; one extent may be -1 and is worked out. A view whenever
/// the strides of x allow one, a copy otherwise.
Tensor reshape(const Tensor& x, const Shape& shape);
/// x with two axes exchanged.
Tensor transpose(const Tensor& x, int axis_a, int axis_b);
/// Axis i of the result is axis axes[i] of x; `axes` names each axis once.
Tensor permute(const Tensor& x, const std::vector<int>& axes);
/// Elements begin <= i < end of an axis; a negative begin or end counts from the end of the axis.
Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end);
/// Element `index` of an axis, without the axis; a negative index counts from the end.
Tensor select(const Tensor& x, int axis, int64_t index);
/// x repeated to `shape` under numpy's rules: new leading axes, and axes of extent 1 that grow. Uses no memory.
Tensor expand(const Tensor& x, const Shape& shape);
/// x without an axis of extent 1.
Tensor squeeze(const Tensor& x, int axis);
/// x with an axis of extent 1 put at position `axis` of the result.
Tensor unsqueeze(const Tensor& x, int axis);
/// Views of x cut along an axis into pieces of the given sizes, which add up to the axis.
Tensors split(const Tensor& x, int axis, const std::vector<int64_t>& sizes);

/// x itself where it is contiguous, otherwise a row-major copy.
Tensor contiguous(const Tensor& x);
/// The tensors one after the other along an axis; shapes agree elsewhere, dtypes and devices everywhere.
Tensor concat(const Tensors& tensors, int axis);
/// Equally shaped tensors side by side along a new axis at position `axis` of the result.
Tensor stack(const Tensors& tensors, int axis);
/// x with the order along an axis reversed.
Tensor flip(const Tensor& x, int axis);
/// x with `before` and `after` elements of `value` added at the two ends of an axis.
Tensor pad(const Tensor& x, int axis, int64_t before, int64_t after, double value = 0);
/// result[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`: index (i32 or i64) and the result have the shape of x
/// except on that axis. An index outside the axis is an Error that names its position.
Tensor gather(const Tensor& x, int axis, const Tensor& index);

}  // namespace monoid

#include "monoid/ops/reduce.h"

#include <algorithm>

#include "monoid/kernels/reduce.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/ops/softmax.h"

namespace monoid {
namespace {

// x summed over the axes where `kept` (of the same rank) has extent 1.
Tensor sum_over(const Tensor& x, const Shape& kept) {
  Tensor total = Tensor::empty(kept, x.dtype(), x.device());
  kernels::sum(x, total);
  return total;
}

int resolve_axis(const char* op, const Tensor& x, int axis) {
  check_defined(op, "x", x);
  const int resolved = axis < 0 ? axis + x.rank() : axis;
  check(resolved >= 0 && resolved < x.rank(), op, ": axis ", axis, " is out of range for ", describe(x));
  return resolved;
}

// All elements along one axis.
Tensor flat(const char* op, const Tensor& x) {
  check_defined(op, "x", x);
  return reshape(x, {-1});
}

// Index of the extremum along an axis, which stays with extent 1.
Tensor place_of(const char* op, const Tensor& x, int axis, Extremum which) {
  axis = resolve_axis(op, x, axis);
  check(x.size(axis) > 0, op, ": axis ", axis, " of ", describe(x), " has no elements to choose from");
  Tensor index = Tensor::empty(x.shape().without(axis), DType::i64, x.device());
  kernels::arg_extremum(x, axis, which, index);
  return index.view(x.shape().with(axis, 1));
}

Tensor extremum(const char* op, const Tensor& x, int axis, Extremum which, bool keep) {
  const Tensor y = gather(x, axis, place_of(op, x, axis, which));
  return keep ? y : squeeze(y, axis);
}

Tensor arg_extremum(const char* op, const Tensor& x, int axis, Extremum which, bool keep) {
  const Tensor index = place_of(op, x, axis, which);
  return keep ? index : squeeze(index, axis);
}

}  // namespace

Tensor sum(const Tensor& x) {
  check_defined("sum", "x", x);
  Shape ones = x.shape();
  for (int axis = 0; axis < ones.rank(); ++axis) ones[axis] = 1;
  Tensor y = sum_over(x, ones).view({});
  Tape::record("sum", {x}, {y}, [shape = x.shape()](const Tensors& dy) -> Tensors { return {expand(dy[0], shape)}; });
  return y;
}

Tensor sum(const Tensor& x, int axis, bool keep) {
  axis = resolve_axis("sum", x, axis);
  const Shape kept = x.shape().with(axis, 1);
  Tensor y = sum_over(x, kept);
  if (!keep) y = y.view(x.shape().without(axis));
  Tape::record("sum", {x}, {y}, [shape = x.shape(), axis, keep](const Tensors& dy) -> Tensors {
    return {expand(keep ? dy[0] : unsqueeze(dy[0], axis), shape)};
  });
  return y;
}

Tensor mean(const Tensor& x) { return mean(flat("mean", x), 0); }

Tensor mean(const Tensor& x, int axis, bool keep) {
  axis = resolve_axis("mean", x, axis);
  return sum(x, axis, keep) / static_cast<double>(x.size(axis));
}

Tensor variance(const Tensor& x) { return variance(flat("variance", x), 0); }

Tensor variance(const Tensor& x, int axis, bool keep, int64_t correction) {
  axis = resolve_axis("variance", x, axis);
  const Tensor distance = x - mean(x, axis, true);
  return sum(square(distance), axis, keep) / static_cast<double>(std::max<int64_t>(x.size(axis) - correction, 0));
}

Tensor max(const Tensor& x) { return max(flat("max", x), 0); }
Tensor min(const Tensor& x) { return min(flat("min", x), 0); }

Tensor max(const Tensor& x, int axis, bool keep) { return extremum("max", x, axis, Extremum::largest, keep); }
Tensor min(const Tensor& x, int axis, bool keep) { return extremum("min", x, axis, Extremum::smallest, keep); }

Tensor argmax(const Tensor& x, int axis, bool keep) { return arg_extremum("argmax", x, axis, Extremum::largest, keep); }
Tensor argmin(const Tensor& x, int axis, bool keep) {
  return arg_extremum("argmin", x, axis, Extremum::smallest, keep);
}

Tensor logsumexp(const Tensor& x) { return logsumexp(flat("logsumexp", x), 0); }

Tensor logsumexp(const Tensor& x, int axis, bool keep) {
  axis = resolve_axis("logsumexp", x, axis);
  Tensor y = Tensor::empty(x.shape().without(axis), x.dtype(), x.device());
  kernels::logsumexp(x, axis, y);
  if (keep) y = y.view(x.shape().with(axis, 1));
  Tape::record("logsumexp", {x}, {y}, [x, axis, keep](const Tensors& dy) -> Tensors {
    return {softmax(x, axis) * (keep ? dy[0] : unsqueeze(dy[0], axis))};
  });
  return y;
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  check_defined("sum_to", "x", x);
  if (x.shape() == shape) return x;
  const int added = x.rank() - shape.rank();
  Shape kept = x.shape();
  bool fits = added >= 0;
  for (int axis = 0; fits && axis < x.rank(); ++axis) {
    kept[axis] = axis < added ? 1 : shape[axis - added];
    fits = kept[axis] == 1 || kept[axis] == x.size(axis);
  }
  check(fits, "sum_to: ", shape, " does not broadcast to ", describe(x));
  Tensor y = sum_over(x, kept).view(shape);
  Tape::record("sum_to", {x}, {y}, [wide = x.shape()](const Tensors& dy) -> Tensors { return {expand(dy[0], wide)}; });
  return y;
}

}  // namespace monoid

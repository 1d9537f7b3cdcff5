#include "monoid/ops/reduce.h"

#include "monoid/kernels/reduce.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// x summed over the axes where `kept` (of the same rank) has extent 1.
Tensor sum_over(const Tensor& x, const Shape& kept) {
  Tensor total = Tensor::empty(kept, x.dtype(), x.device());
  kernels::sum(x, 1, total);
  return total;
}

int resolve_axis(const char* op, const Tensor& x, int axis) {
  check_defined(op, "x", x);
  const int resolved = axis < 0 ? axis + x.rank() : axis;
  check(resolved >= 0 && resolved < x.rank(), op, ": axis ", axis, " is out of range for ", describe(x));
  return resolved;
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

Tensor sum_to(const Tensor& x, const Shape& shape) {
  check_defined("sum_to", "x", x);
  if (x.shape() == shape) return x;
  const int added = x.rank() - shape.rank();
  Shape kept = x.shape();
  for (int axis = 0; axis < x.rank(); ++axis) kept[axis] = axis < added ? 1 : shape[axis - added];
  check(added >= 0 && broadcast_shapes("sum_to", x.shape(), kept) == x.shape(), "sum_to: ", shape,
        " does not broadcast to ", describe(x));
  Tensor y = sum_over(x, kept).view(shape);
  Tape::record("sum_to", {x}, {y}, [wide = x.shape()](const Tensors& dy) -> Tensors { return {expand(dy[0], wide)}; });
  return y;
}

}  // namespace monoid

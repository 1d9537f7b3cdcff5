#include "monoid/ops/softmax.h"

#include <utility>

#include "monoid/core/tape.h"
#include "monoid/kernels/softmax.h"
#include "monoid/ops/rows.h"

namespace monoid {
namespace {

// The same data with `axis` in the last place, and the other way round.
Tensor swapped_with_last(const Tensor& x, int axis) {
  Shape shape = x.shape();
  Strides strides = x.strides();
  std::swap(shape[axis], shape[-1]);
  std::swap(strides[axis], strides[-1]);
  return x.as_strided(shape, strides, x.offset());
}

Tensor along_axis(const char* op, const Kernel<Softmax>& forward, const Kernel<SoftmaxGradient>& gradient,
                  const Tensor& x, int axis) {
  check_defined(op, "x", x);
  check(is_floating(x.dtype()) && x.rank() >= 1, op, ": wants floating-point numbers along an axis, got ", describe(x));
  axis = x.shape().resolve(axis);
  const Tensor rows = with_contiguous_rows(swapped_with_last(x, axis));
  Tensor y_rows = Tensor::empty_like(rows);
  forward(rows, y_rows);
  const Tensor y = swapped_with_last(y_rows, axis);
  Tape::record(op, {x}, {y}, [=, &gradient](const Tensors& dy) -> Tensors {
    Tensor dx = Tensor::empty_like(y_rows);
    gradient(y_rows, with_contiguous_rows(swapped_with_last(dy[0], axis)), dx);
    return {swapped_with_last(dx, axis)};
  });
  return y;
}

}  // namespace

Tensor softmax(const Tensor& x, int axis) {
  return along_axis("softmax", kernels::softmax, kernels::softmax_gradient, x, axis);
}

Tensor log_softmax(const Tensor& x, int axis) {
  return along_axis("log_softmax", kernels::log_softmax, kernels::log_softmax_gradient, x, axis);
}

}  // namespace monoid

#include "monoid/ops/gated_gelu.h"

#include "monoid/kernels/gated_gelu.h"
#include "monoid/ops/rows.h"

namespace monoid {

Tensor gated_gelu(const Tensor& x) {
  check_defined("gated_gelu", "x", x);
  check(is_floating(x.dtype()) && x.rank() >= 1 && x.size(-1) % 2 == 0, "gated_gelu: x is ", describe(x),
        ", wanted floating-point numbers [..., 2 * channel], values and then gates");
  const Tensor packed = contiguous_or_copy(x);
  Tensor y = Tensor::empty(x.shape().with(-1, x.size(-1) / 2), x.dtype(), x.device());
  kernels::gated_gelu(packed, y);
  Tape::record("gated_gelu", {x}, {y}, [packed](const Tensors& dy) -> Tensors {
    Tensor dx = Tensor::empty_like(packed);
    kernels::gated_gelu_gradient(packed, contiguous_or_copy(dy[0]), dx);
    return {dx};
  });
  return y;
}

}  // namespace monoid

#include "monoid/layers/padding.h"

#include <limits>

#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

Padding::Padding(const Tensor& count, int64_t time) : count_(count) {
  if (!count.defined()) return;
  const Tensor steps = Tensor::arange(time, DType::i32, count.device());
  padded_ = less(reshape(steps, {1, time, 1}), reshape(count, {count.size(0), 1, 1}));
}

Tensor Padding::zeroed(const Tensor& x) const {
  return count_.defined() ? where(padded_, Tensor::scalar(0, x.dtype(), x.device()), x) : x;
}

Tensor Padding::close_gates(const Tensor& packed, int64_t gates) const {
  if (!count_.defined()) return packed;
  Tensor closed = Tensor::zeros({packed.size(-1)}, packed.dtype(), packed.device());
  slice(closed, 0, gates, packed.size(-1)).fill(-std::numeric_limits<double>::infinity());
  return where(padded_, closed, packed);
}

}  // namespace monoid

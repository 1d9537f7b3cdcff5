#include "monoid/layers/geglu_feed_forward.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

GegluFeedForward::GegluFeedForward(int64_t channels, int64_t inner, Generator& init)
    : inner_(inner), up_(channels, 2 * inner, Bias::none, init), down_(inner, channels, Bias::none, init) {}

Tensor GegluFeedForward::forward(const Tensor& x, const Tensor& residual) const {
  const Tensors halves = split(up_.forward(x), -1, {inner_, inner_});
  return down_.forward(gelu(halves[1]) * halves[0], residual);
}

void GegluFeedForward::visit(Visitor& visitor) {
  visitor.child("up", up_);
  visitor.child("down", down_);
}

}  // namespace monoid

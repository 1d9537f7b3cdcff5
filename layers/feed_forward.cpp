#include "monoid/layers/feed_forward.h"

namespace monoid {

FeedForward::FeedForward(int64_t channels, int64_t inner, Bias bias, Generator& init)
    : up_(channels, inner, bias, init), down_(inner, channels, bias, init) {}

Tensor FeedForward::forward(const Tensor& x, const Tensor& residual) const {
  return down_.forward(up_.gelu(x), residual);
}

Tensor FeedForward::on_stream(const RmsNorm& norm, const Tensor& x) const {
  const LinearAndSum up = up_.after(norm, x, Activation::gelu);
  return down_.forward(up.output, up.sum);
}

void FeedForward::visit(Visitor& visitor) {
  visitor.child("up", up_);
  visitor.child("down", down_);
}

}  // namespace monoid

#include "monoid/layers/geglu_feed_forward.h"

#include "monoid/layers/init.h"
#include "monoid/ops/gated_gelu.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// Tensor cores want rows of whole 16 bytes. Channels of zeros behind an odd width change nothing and cost less than
// products of crooked rows, where there are enough of these.
int64_t missing_channels(int64_t inner, const Tensor& x) {
  constexpr int64_t kAligned = 8, kFewRows = 256;
  const bool many = x.device().is_cuda() && x.elements() >= kFewRows * x.size(-1);
  return many ? (kAligned - inner % kAligned) % kAligned : 0;
}

}  // namespace

GegluFeedForward::GegluFeedForward(int64_t channels, int64_t inner, Generator& init)
    : up_(fan_in_parameter({2 * inner, channels}, channels, init)),
      down_(fan_in_parameter({channels, inner}, inner, init)) {}

Tensor GegluFeedForward::forward(const Tensor& x, const Tensor& residual) const {
  const int64_t inner = down_.size(1), missing = missing_channels(inner, x);
  Tensor up = up_, down = down_;
  if (missing > 0) {
    up = reshape(pad(reshape(up, {2, inner, up.size(1)}), 1, 0, missing), {2 * (inner + missing), up.size(1)});
    down = pad(down, 1, 0, missing);
  }
  return linear(gated_gelu(linear(x, up)), down, {}, residual);
}

void GegluFeedForward::visit(Visitor& visitor) {
  visitor.parameter("up.weight", up_);
  visitor.parameter("down.weight", down_);
}

}  // namespace monoid

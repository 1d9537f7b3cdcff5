#pragma once

#include <utility>

#include "monoid/layers/linear.h"

namespace monoid {

/// down(gelu(up(x))), with the exact (erf) GELU.
class FeedForward : public Module {
 public:
  FeedForward(int64_t channels, int64_t inner, Bias bias, Generator& init);
  /// Starts from these instead.
  FeedForward(Linear up, Linear down) : up_(std::move(up)), down_(std::move(down)) {}

  /// [..., channels] -> [..., channels], plus a residual of that shape if given.
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  /// x + forward(norm(x)).
  Tensor on_stream(const RmsNorm& norm, const Tensor& x) const;
  void visit(Visitor& visitor) override;

 private:
  Linear up_, down_;
};

}  // namespace monoid

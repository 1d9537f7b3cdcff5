#pragma once

#include "monoid/core/random.h"
#include "monoid/layers/module.h"

namespace monoid {

/// down(gelu(gate) * value), with value and gate the two halves of up(x) and the exact (erf) GELU (Shazeer, "GLU
/// variants improve transformer", 2020). No biases.
class GegluFeedForward : public Module {
 public:
  GegluFeedForward(int64_t channels, int64_t inner, Generator& init);

  /// [..., channels] -> [..., channels], plus a residual of that shape if given.
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor up_, down_;  // [2 * inner, channels], [channels, inner]
};

}  // namespace monoid

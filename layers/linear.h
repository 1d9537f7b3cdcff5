#pragma once

#include "monoid/layers/init.h"
#include "monoid/layers/module.h"

namespace monoid {

/// y = x weight^T + bias, weight [out, in].
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, Bias bias, Generator& init);

  /// [..., in] -> [..., out], plus a residual of that shape if given.
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor weight_, bias_;
};

}  // namespace monoid

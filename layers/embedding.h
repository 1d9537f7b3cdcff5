#pragma once

#include "monoid/layers/init.h"
#include "monoid/layers/module.h"

namespace monoid {

/// A learned vector for each token; starts from N(0, 1).
class Embedding : public Module {
 public:
  Embedding(int64_t rows, int64_t channels, Generator& init, double deviation = 1);

  /// tokens i32 or i64 [...] -> [..., channels].
  Tensor forward(const Tensor& tokens) const;
  /// For a head that shares it.
  const Tensor& weight() const { return weight_; }
  void visit(Visitor& visitor) override;

 private:
  Tensor weight_;
};

}  // namespace monoid

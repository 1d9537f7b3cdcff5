#pragma once

#include "monoid/layers/init.h"
#include "monoid/layers/module.h"
#include "monoid/ops/norm.h"

namespace monoid {

/// x / sqrt(mean(x^2) + eps) * weight over the last axis. eps < 0: the machine epsilon of x's dtype, as in PyTorch.
class RmsNorm : public Module {
 public:
  explicit RmsNorm(int64_t channels, double eps = -1);

  Tensor forward(const Tensor& x) const;
  /// The norm on a residual stream, of x + residual (x where there is none), and the stream beside it.
  NormAndSum add(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor& visitor) override;

  const Tensor& weight() const { return weight_; }
  double eps() const { return eps_; }

 private:
  Tensor weight_;
  double eps_;
};

/// The same with the root of the mean square at least 1e-12 / sqrt(channels), or nearly so: L2RmsNorm as a norm on a
/// residual stream. They differ by less than rounding wherever ||x|| is above 1e-8.
RmsNorm length_norm(int64_t channels);

/// x / max(||x||, 1e-12) * sqrt(channels) * gamma over the last axis.
class L2RmsNorm : public Module {
 public:
  explicit L2RmsNorm(int64_t channels);

  Tensor forward(const Tensor& x) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor gamma_;
};

/// (x - mean) / sqrt(variance + eps) * weight + bias over the last axis; the bias is optional.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(int64_t channels, Bias bias = Bias::learned, double eps = 1e-5);

  Tensor forward(const Tensor& x) const;
  /// The norm on a residual stream, as RmsNorm::add.
  NormAndSum add(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor weight_, bias_;
  double eps_;
};

}  // namespace monoid

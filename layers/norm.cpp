#include "monoid/layers/norm.h"

namespace monoid {

RmsNorm::RmsNorm(int64_t channels, double eps) : weight_(constant_parameter({channels}, 1)), eps_(eps) {}

Tensor RmsNorm::forward(const Tensor& x) const { return rms_norm(x, weight_, eps_); }

NormAndSum RmsNorm::add(const Tensor& x, const Tensor& residual) const {
  return add_rms_norm(x, residual, weight_, eps_);
}

void RmsNorm::visit(Visitor& visitor) { visitor.parameter("weight", weight_); }

RmsNorm length_norm(int64_t channels) { return RmsNorm(channels, 1e-24 / static_cast<double>(channels)); }

L2RmsNorm::L2RmsNorm(int64_t channels) : gamma_(constant_parameter({channels}, 1)) {}

Tensor L2RmsNorm::forward(const Tensor& x) const { return l2_rms_norm(x, gamma_); }

void L2RmsNorm::visit(Visitor& visitor) { visitor.parameter("gamma", gamma_); }

LayerNorm::LayerNorm(int64_t channels, Bias bias, double eps) : weight_(constant_parameter({channels}, 1)), eps_(eps) {
  if (bias == Bias::learned) bias_ = constant_parameter({channels}, 0);
}

Tensor LayerNorm::forward(const Tensor& x) const { return layer_norm(x, weight_, bias_, eps_); }

NormAndSum LayerNorm::add(const Tensor& x, const Tensor& residual) const {
  return add_layer_norm(x, residual, weight_, bias_, eps_);
}

void LayerNorm::visit(Visitor& visitor) {
  visitor.parameter("weight", weight_);
  if (bias_.defined()) visitor.parameter("bias", bias_);
}

}  // namespace monoid

#include "monoid/layers/linear.h"

#include "monoid/ops/matmul.h"

namespace monoid {

Linear::Linear(int64_t in, int64_t out, Bias bias, Generator& init) : weight_(fan_in_parameter({out, in}, in, init)) {
  if (bias == Bias::learned) bias_ = fan_in_parameter({out}, in, init);
}

Tensor Linear::forward(const Tensor& x, const Tensor& residual) const { return linear(x, weight_, bias_, residual); }

Tensor Linear::gelu(const Tensor& x) const { return linear_gelu(x, weight_, bias_); }

LinearAndSum Linear::after(const RmsNorm& norm, const Tensor& x, Activation activation) const {
  return rms_norm_linear(x, norm.weight(), norm.eps(), weight_, bias_, activation);
}

void Linear::visit(Visitor& visitor) {
  visitor.parameter("weight", weight_);
  if (bias_.defined()) visitor.parameter("bias", bias_);
}

Linear xavier_linear(int64_t in, int64_t out, Bias bias, Generator& init) {
  return Linear(xavier_parameter(out, in, init), zero_bias(out, bias));
}

Linear normal_linear(int64_t in, int64_t out, Bias bias, double deviation, Generator& init) {
  return Linear(normal_parameter({out, in}, deviation, init), zero_bias(out, bias));
}

}  // namespace monoid

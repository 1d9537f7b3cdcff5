#include "monoid/layers/linear.h"

#include "monoid/ops/matmul.h"
#include "monoid/ops/shape_ops.h"

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

Tensor joined_weights(const std::vector<const Linear*>& linears) {
  Tensors weights;
  for (const Linear* linear : linears) weights.push_back(linear->weight());
  return concat(weights, 0);
}

Tensors forward_together(const std::vector<const Linear*>& linears, const Tensor& x) {
  constexpr int64_t kFewRows = 256;  // fewer are done before weights are joined
  Tensors outputs;
  std::vector<int64_t> widths;
  if (linears.size() == 1 || x.elements() < kFewRows * x.size(-1)) {
    for (const Linear* linear : linears) outputs.push_back(linear->forward(x));
    return outputs;
  }
  for (const Linear* linear : linears) widths.push_back(linear->weight().size(0));
  return split(linear(x, joined_weights(linears)), -1, widths);
}

Linear xavier_linear(int64_t in, int64_t out, Bias bias, Generator& init) {
  return Linear(xavier_parameter(out, in, init), zero_bias(out, bias));
}

Linear normal_linear(int64_t in, int64_t out, Bias bias, double deviation, Generator& init) {
  return Linear(normal_parameter({out, in}, deviation, init), zero_bias(out, bias));
}

}  // namespace monoid

#include "monoid/layers/causal_conv.h"

#include "monoid/ops/conv.h"

namespace monoid {

CausalDepthwiseConv::CausalDepthwiseConv(int64_t channels, int64_t kernel, Bias bias, Generator& init)
    : weight_(fan_in_parameter({channels, kernel}, kernel, init)) {
  if (bias == Bias::learned) bias_ = fan_in_parameter({channels}, kernel, init);
}

OutputAndState CausalDepthwiseConv::forward(const Tensor& x, const Tensor& tail) const {
  const ConvResult result = causal_depthwise_conv1d(x, weight_, bias_, tail);
  return {result.output, result.tail};
}

void CausalDepthwiseConv::visit(Visitor& visitor) {
  visitor.parameter("weight", weight_);
  if (bias_.defined()) visitor.parameter("bias", bias_);
}

CausalSeparableConv::CausalSeparableConv(int64_t channels, int64_t kernel, Generator& init)
    : depthwise_(channels, kernel, Bias::learned, init), pointwise_(channels, channels, Bias::learned, init) {}

OutputAndState CausalSeparableConv::forward(const Tensor& x, const Tensor& tail, const Tensor& residual) const {
  const OutputAndState mixed_in_time = depthwise_.forward(x, tail);
  return {pointwise_.forward(mixed_in_time.output, residual), mixed_in_time.state};
}

void CausalSeparableConv::visit(Visitor& visitor) {
  visitor.child("depthwise", depthwise_);
  visitor.child("pointwise", pointwise_);
}

}  // namespace monoid

#pragma once

#include "monoid/layers/linear.h"
#include "monoid/layers/state.h"

namespace monoid {

/// Each channel over its own last `kernel` values: y_t = bias + sum_j weight[j] x_{t - kernel + 1 + j}. What comes
/// before the sequence is `tail`, or zeros.
class CausalDepthwiseConv : public Module {
 public:
  CausalDepthwiseConv(int64_t channels, int64_t kernel, Bias bias, Generator& init);
  /// Starts from these instead: weight [channel, kernel], bias [channel] or none.
  explicit CausalDepthwiseConv(const Tensor& weight, const Tensor& bias = {}) : weight_(weight), bias_(bias) {}

  /// x [batch, time, channel], tail [batch, kernel - 1, channel] -> output like x, and the next tail as state.
  OutputAndState forward(const Tensor& x, const Tensor& tail = {}) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor weight_, bias_;  // [channel, kernel], [channel]
};

/// A depthwise convolution, then a mix of the channels of each step (a 1 x 1 convolution); both with bias.
class CausalSeparableConv : public Module {
 public:
  CausalSeparableConv(int64_t channels, int64_t kernel, Generator& init);

  /// As CausalDepthwiseConv, the output plus a residual of its shape if given.
  OutputAndState forward(const Tensor& x, const Tensor& tail = {}, const Tensor& residual = {}) const;
  void visit(Visitor& visitor) override;

 private:
  CausalDepthwiseConv depthwise_;
  Linear pointwise_;
};

}  // namespace monoid

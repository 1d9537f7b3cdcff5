#pragma once

#include <vector>

#include "monoid/core/tape.h"
#include "monoid/layers/init.h"
#include "monoid/layers/module.h"
#include "monoid/layers/norm.h"
#include "monoid/ops/norm_linear.h"

namespace monoid {

/// y = x weight^T + bias, weight [out, in].
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, Bias bias, Generator& init);
  /// Starts from these instead: weight [out, in], bias [out] or none.
  explicit Linear(const Tensor& weight, const Tensor& bias = {}) : weight_(weight), bias_(bias) {}

  /// [..., in] -> [..., out], plus a residual of that shape if given.
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  /// gelu(forward(x)), in which the bias costs nothing.
  Tensor gelu(const Tensor& x) const;
  /// activation(forward(norm(x))) on a residual stream x, and the stream beside it: ops/norm_linear.h.
  LinearAndSum after(const RmsNorm& norm, const Tensor& x, Activation activation = Activation::none) const;
  void visit(Visitor& visitor) override;

  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }

 private:
  Tensor weight_, bias_;
};

/// The weights of linears that read one x, one below the other: [sum of out, in].
Tensor joined_weights(const std::vector<const Linear*>& linears);
/// What linears without biases make of one x. Many rows take one product, and one gradient of x, for all of them.
Tensors forward_together(const std::vector<const Linear*>& linears, const Tensor& x);

/// Started from Xavier's uniform distribution, the bias from zero.
Linear xavier_linear(int64_t in, int64_t out, Bias bias, Generator& init);
/// From a normal distribution around zero, the bias from zero.
Linear normal_linear(int64_t in, int64_t out, Bias bias, double deviation, Generator& init);

}  // namespace monoid

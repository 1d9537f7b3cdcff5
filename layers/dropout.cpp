#include "monoid/layers/dropout.h"

#include "monoid/ops/dropout.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"

namespace monoid {

Dropout::Dropout(double probability) : probability_(probability) {
  check(probability >= 0 && probability < 1, "Dropout: probability is ", probability, ", wanted 0 <= p < 1");
}

Tensor Dropout::forward(const Tensor& x, Generator* generator) const {
  return generator && probability_ > 0 ? dropout(x, probability_, *generator) : x;
}

Tensor Dropout::of_linear(const Tensor& x, const Tensor& weight, const Tensor& residual, Generator* generator) const {
  if (!generator || probability_ == 0) return linear(x, weight, {}, residual);
  const Tensor kept = forward(linear(x, weight), generator);
  return residual.defined() ? residual + kept : kept;
}

Tensor coin(double probability, Device device, Generator& generator) {
  check(probability >= 0 && probability <= 1, "coin: probability is ", probability, ", wanted 0 <= p <= 1");
  const Tensor one = Tensor::ones({1}, DType::f32, device);
  return equal(dropout(one, probability, generator), Tensor::zeros_like(one));
}

}  // namespace monoid

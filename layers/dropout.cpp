#include "monoid/layers/dropout.h"

#include "monoid/ops/dropout.h"

namespace monoid {

Dropout::Dropout(double probability) : probability_(probability) {
  check(probability >= 0 && probability < 1, "Dropout: probability is ", probability, ", wanted 0 <= p < 1");
}

Tensor Dropout::forward(const Tensor& x, Generator* generator) const {
  return generator && probability_ > 0 ? dropout(x, probability_, *generator) : x;
}

}  // namespace monoid

#include "monoid/layers/embedding.h"

#include "monoid/ops/embedding.h"

namespace monoid {

Embedding::Embedding(int64_t rows, int64_t channels, Generator& init, double deviation)
    : weight_(normal_parameter({rows, channels}, deviation, init)) {}

Tensor Embedding::forward(const Tensor& tokens) const { return embedding(weight_, tokens); }

void Embedding::visit(Visitor& visitor) { visitor.parameter("weight", weight_); }

}  // namespace monoid

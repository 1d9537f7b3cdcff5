#include "monoid/ops/embedding.h"

#include "monoid/core/tape.h"
#include "monoid/kernels/indexing.h"
#include "monoid/ops/rows.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
Tensor embedding(const Tensor& weight, const Tensor& tokens) {
  check_defined("embedding", "weight", weight);
  check_defined("embedding", "tokens", tokens);
  check(weight.rank() == 2, "embedding: weight is ", describe(weight), ", wanted [rows, channel]");
  check(tokens.device() == weight.device(), "embedding: operands are on two devices, ", describe(weight), " and ",
        describe(tokens));
  const int64_t channels = weight.size(1);
  const Tensor places = contiguous(tokens);
  Tensor rows = Tensor::empty({tokens.elements(), channels}, weight.dtype(), weight.device());
  kernels::embedding(with_contiguous_rows(weight), places, rows);
  Shape shape = tokens.shape();
  shape.push_back(channels);
  Tensor y = rows.view(shape);
  Tape::record("embedding", {weight}, {y}, [places, shape = weight.shape()](const Tensors& dy) -> Tensors {
    Tensor dweight = Tensor::zeros(shape, dy[0].dtype(), dy[0].device());
    kernels::embedding_gradient(with_contiguous_rows(reshape(dy[0], {places.elements(), shape[1]})), places, dweight);
    return {dweight};
  });
  return y;
}

}  // namespace monoid

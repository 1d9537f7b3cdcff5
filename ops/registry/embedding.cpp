#include "monoid/ops/embedding.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

OpList embedding_ops() {
  return {
      {"embedding", [](SampleMaker& make) -> std::vector<OpSample> {
         const auto look_up = [](const Tensor& tokens) {
           return [tokens](const Tensors& in) -> Tensors { return {embedding(in[0], tokens)}; };
         };
         const auto transposed = [tokens = make.integers({4}, 3)](const Tensors& in) -> Tensors {
           return {transpose(embedding(transpose(in[0], 0, 1), tokens), 0, 1)};
         };
         return {
             {"a batch of sequences", {make.normal({5, 3})}, look_up(make.integers({2, 4}, 5))},
             {"one i32 token", {make.normal({4, 2})}, look_up(make.integers({}, 4).to(DType::i32))},
             {"more rows of one token than one piece takes", {make.normal({2, 2})}, look_up(make.integers({300}, 2))},
             {"a transposed table and gradient", {make.normal({2, 3})}, transposed},
             {"no tokens", {make.normal({3, 2})}, look_up(make.integers({2, 0}, 1))}};
       }}};
}

}  // namespace monoid

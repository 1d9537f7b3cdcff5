#include "monoid/ops/softmax.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

std::vector<OpSample> samples(SampleMaker& make, Tensor (*op)(const Tensor&, int)) {
  const auto along = [op](int axis) { return [=](const Tensors& in) -> Tensors { return {op(in[0], axis)}; }; };
  return {
      {"3 x 5, last axis", {make.normal({3, 5})}, along(-1)},
      {"2 x 3 x 4, first axis", {make.normal({2, 3, 4})}, along(0)},
      {"2 x 3 x 4, middle axis", {make.normal({2, 3, 4})}, along(1)},
      {"wide logits", {make.normal({2, 6}, 8)}, along(1)},
      {"rows of a wider tensor, transposed result",
       {make.normal({2, 2, 7})},
       [op](const Tensors& in) -> Tensors { return {transpose(op(slice(in[0], -1, 2, 6), -1), 1, 2)}; }},
      {"one element a row", {make.normal({4, 1})}, along(-1)},
      {"one row [7]", {make.normal({7})}, along(0)},
      {"no rows", {make.normal({0, 3})}, along(-1)},
      {"no elements a row", {make.normal({3, 0})}, along(-1)},
  };
}

}  // namespace

OpList softmax_ops() {
  return {
      {"softmax", [](SampleMaker& make) { return samples(make, softmax); }},
      {"log_softmax", [](SampleMaker& make) { return samples(make, log_softmax); }},
  };
}

}  // namespace monoid

#include "monoid/ops/cross_entropy.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

OpList cross_entropy_ops() {
  const auto with = [](const CrossEntropyOptions& options) {
    return [=](const Tensors& in) -> Tensors { return {cross_entropy(in[0], in[1], options)}; };
  };
  const auto but_last = [](const Tensors& in) -> Tensors {
    return {transpose(cross_entropy(slice(in[0], 1, 0, 3), in[1], {.reduction = Reduction::none}), 0, 1)};
  };
  const auto across = [](const Tensors& in) -> Tensors { return {cross_entropy(transpose(in[0], 0, 1), in[1])}; };
  const auto samples = [=](SampleMaker& make) -> std::vector<OpSample> {
    const auto logits = [&] { return make.normal({2, 4, 5}, 2); };
    const auto targets = [&] { return make.integers({2, 4}, 5); };
    return {
        {"mean", {logits(), targets()}, with({})},
        {"sum, i32 targets", {logits(), targets().to(DType::i32)}, with({.reduction = Reduction::sum})},
        {"none", {logits(), targets()}, with({.reduction = Reduction::none})},
        {"class 2 ignored", {logits(), targets()}, with({.ignore_index = 2})},
        {"class 2 ignored, none", {logits(), targets()}, with({.ignore_index = 2, .reduction = Reduction::none})},
        {"label smoothing, class 1 ignored", {logits(), targets()}, with({.ignore_index = 1, .label_smoothing = 0.2})},
        {"all rows ignored", {make.normal({3, 4}), make.integers({3}, 1)}, with({.ignore_index = 0})},
        {"all steps but the last, transposed losses", {logits(), make.integers({2, 3}, 5)}, but_last},
        {"classes not adjacent", {make.normal({5, 4}), make.integers({4}, 5)}, across},
        {"one class", {make.normal({3, 1}), make.integers({3}, 1)}, with({})},
        {"one row [6]", {make.normal({6}), make.integers({}, 6)}, with({})},
        {"no rows", {make.normal({0, 4}), make.integers({0}, 4)}, with({})},
    };
  };
  return {{"cross_entropy", samples}};
}

}  // namespace monoid

#include "monoid/ops/matmul.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

std::vector<OpSample> matmul_samples(SampleMaker& make) {
  const auto run = [](const Tensors& in) { return Tensors{matmul(in[0], in[1])}; };
  const auto columns_first = [](const Tensors& in) {
    return Tensors{matmul(transpose(in[0], -1, -2), transpose(in[1], -1, -2))};
  };
  const auto strided = [](const Tensors& in) {
    const Tensor every_second = select(reshape(in[1], {2, 3, 2}), -1, 1);  // [2, 3], neither step is 1
    return Tensors{matmul(expand(in[0], {4, 3}), transpose(every_second, 0, 1))};
  };
  return {
      {"[3, 4] x [4, 5]", {make.normal({3, 4}), make.normal({4, 5})}, run},
      {"[9, 2] x [2, 3], more rows than columns", {make.normal({9, 2}), make.normal({2, 3})}, run},
      {"a row by a column", {make.normal({1, 7}), make.normal({7, 1})}, run},
      {"a column by a row", {make.normal({5, 1}), make.normal({1, 3})}, run},
      {"inner extent 0", {make.normal({2, 0}), make.normal({0, 3})}, run},
      {"batch of 3", {make.normal({3, 2, 4}), make.normal({3, 4, 2})}, run},
      {"batch of 0", {make.normal({0, 2, 4}), make.normal({0, 4, 2})}, run},
      {"[2, 1, 2, 3] x [3, 3, 2], batches broadcast both ways",
       {make.normal({2, 1, 2, 3}), make.normal({3, 3, 2})},
       run},
      {"batch by one matrix", {make.normal({2, 3, 4}), make.normal({4, 2})}, run},
      {"one matrix by a batch", {make.normal({2, 3}), make.normal({3, 3, 2})}, run},
      {"both transposed", {make.normal({2, 4, 3}), make.normal({2, 4})}, columns_first},
      {"a row repeated, a column skipped", {make.normal({1, 3}), make.normal({2, 6})}, strided},
  };
}

std::vector<OpSample> linear_samples(SampleMaker& make) {
  const auto run = [](const Tensors& in) { return Tensors{linear(in[0], in[1], in[2])}; };
  const auto with_residual = [](const Tensors& in) { return Tensors{linear(in[0], in[1], in[2], in[3])}; };
  const auto last_step = [](const Tensors& in) { return Tensors{linear(select(in[0], 1, -1), in[1], in[2])}; };
  return {
      {"[2, 3, 4] to 5, bias", {make.normal({2, 3, 4}), make.normal({5, 4}), make.normal({5})}, run},
      {"[3, 4] to 2, no bias", {make.normal({3, 4}), make.normal({2, 4}), Tensor()}, run},
      {"the last step of each sequence", {make.normal({3, 2, 4}), make.normal({2, 4}), make.normal({2})}, last_step},
      {"one vector", {make.normal({4}), make.normal({3, 4}), make.normal({3})}, run},
      {"batch 0", {make.normal({0, 2, 4}), make.normal({3, 4}), make.normal({3})}, run},
      {"width 1 to 1", {make.normal({2, 1}), make.normal({1, 1}), make.normal({1})}, run},
      {"bias and residual",
       {make.normal({2, 3, 4}), make.normal({5, 4}), make.normal({5}), make.normal({2, 3, 5})},
       with_residual},
      {"residual alone", {make.normal({9, 4}), make.normal({9, 4}), Tensor(), make.normal({9, 9})}, with_residual},
      {"residual of one vector", {make.normal({3}), make.normal({2, 3}), Tensor(), make.normal({2})}, with_residual},
  };
}

std::vector<OpSample> linear_gelu_samples(SampleMaker& make) {
  const auto run = [](const Tensors& in) { return Tensors{linear_gelu(in[0], in[1], in[2])}; };
  const auto last_step = [](const Tensors& in) { return Tensors{linear_gelu(select(in[0], 1, -1), in[1], in[2])}; };
  return {
      {"[2, 3, 4] to 5, bias", {make.normal({2, 3, 4}), make.normal({5, 4}), make.normal({5})}, run},
      {"[3, 4] to 8, no bias", {make.normal({3, 4}), make.normal({8, 4}), Tensor()}, run},
      {"[70, 3] to 16, bias", {make.normal({70, 3}), make.normal({16, 3}), make.normal({16})}, run},
      {"the last step of each sequence", {make.normal({3, 2, 4}), make.normal({2, 4}), make.normal({2})}, last_step},
      {"one vector", {make.normal({4}), make.normal({3, 4}), make.normal({3})}, run},
      {"batch 0", {make.normal({0, 2, 4}), make.normal({3, 4}), make.normal({3})}, run},
  };
}

}  // namespace

OpList matmul_ops() {
  return {{"matmul", matmul_samples}, {"linear", linear_samples}, {"linear_gelu", linear_gelu_samples}};
}

}  // namespace monoid

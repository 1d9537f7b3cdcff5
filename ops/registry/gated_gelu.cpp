#include "monoid/ops/gated_gelu.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

std::vector<OpSample> gated_gelu_samples(SampleMaker& make) {
  const auto run = [](const Tensors& in) { return Tensors{gated_gelu(in[0])}; };
  const auto steps = [](const Tensors& in) { return Tensors{gated_gelu(transpose(in[0], 0, 1))}; };
  return {
      {"[2, 3, 16], whole packs", {make.normal({2, 3, 16}, 2)}, run},
      {"[5, 6], odd channels", {make.normal({5, 6}, 2)}, run},
      {"strided rows", {make.normal({3, 2, 8}, 2)}, steps},
      {"one row", {make.normal({4}, 2)}, run},
      {"batch 0", {make.normal({0, 2, 4})}, run},
      {"no channels", {make.normal({3, 0})}, run},
  };
}

}  // namespace

OpList gated_gelu_ops() { return {{"gated_gelu", gated_gelu_samples}}; }

}  // namespace monoid

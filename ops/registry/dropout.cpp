#include "monoid/ops/dropout.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

OpList dropout_ops() {
  return {
      {"dropout", [](SampleMaker& make) -> std::vector<OpSample> {
         // A generator of its own for every call, so that every call draws the same mask.
         const auto run = [](const Tensor& x, double probability) -> Tensors {
           Generator generator(7);
           return {dropout(x, probability, generator)};
         };
         return {
             {"3 x 11, probability 0.3", {make.normal({3, 11})}, [=](const Tensors& in) { return run(in[0], 0.3); }},
             {"transposed 4 x 5",
              {make.normal({4, 5})},
              [=](const Tensors& in) { return run(transpose(in[0], 0, 1), 0.5); }},
             {"probability 1", {make.normal({5})}, [=](const Tensors& in) { return run(in[0], 1); }},
             {"empty", {make.normal({0, 3})}, [=](const Tensors& in) { return run(in[0], 0.5); }},
         };
       }}};
}

}  // namespace monoid

#include "monoid/ops/norm.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {

OpList norm_ops() {
  const auto packed = [](const Tensor& x) { return slice(x, -1, 3, 7); };  // rows of 4 inside wider ones
  const auto across = [](const Tensor& x) { return transpose(x, -1, -2); };
  return {
      {"rms_norm",
       [=](SampleMaker& make) -> std::vector<OpSample> {
         const auto weighted = [](const Tensors& in) -> Tensors { return {rms_norm(in[0], in[1])}; };
         return {
             {"2 x 3 x 5, weight", {make.normal({2, 3, 5}), make.normal({5})}, weighted},
             {"no weight, eps 0.5",
              {make.normal({3, 7})},
              [](const Tensors& in) -> Tensors { return {rms_norm(in[0], {}, 0.5)}; }},
             {"one channel",
              {make.away_from_zero({4, 1}), make.normal({1})},
              [](const Tensors& in) -> Tensors { return {rms_norm(in[0], in[1], 0.1)}; }},
             {"one row [6]", {make.normal({6}), make.normal({6})}, weighted},
             {"packed rows",
              {make.normal({2, 2, 9}), make.normal({4})},
              [=](const Tensors& in) -> Tensors { return {rms_norm(packed(in[0]), in[1])}; }},
             {"transposed in and out",
              {make.normal({4, 3}), make.normal({4})},
              [=](const Tensors& in) -> Tensors { return {across(rms_norm(across(in[0]), in[1]))}; }},
             {"no rows", {make.normal({0, 4}), make.normal({4})}, weighted},
         };
       }},
      {"l2_rms_norm",
       [=](SampleMaker& make) -> std::vector<OpSample> {
         const auto run = [](const Tensors& in) -> Tensors { return {l2_rms_norm(in[0], in[1])}; };
         return {
             {"2 x 3 x 5", {make.normal({2, 3, 5}), make.normal({5})}, run},
             {"no gamma", {make.normal({2, 3, 5})}, [](const Tensors& in) -> Tensors { return {l2_rms_norm(in[0])}; }},
             {"packed rows",
              {make.normal({2, 2, 9}), make.normal({4})},
              [=](const Tensors& in) -> Tensors { return {l2_rms_norm(packed(in[0]), in[1])}; }},
         };
       }},
      {"add_rms_norm",
       [=](SampleMaker& make) -> std::vector<OpSample> {
         const auto both = [](const NormAndSum& result) -> Tensors { return {result.normed, result.sum}; };
         const auto added = [=](const Tensors& in) { return both(add_rms_norm(in[0], in[1], in[2])); };
         return {
             {"2 x 3 x 5", {make.normal({2, 3, 5}), make.normal({2, 3, 5}), make.normal({5})}, added},
             {"no residual",
              {make.normal({3, 4}), make.normal({4})},
              [=](const Tensors& in) { return both(add_rms_norm(in[0], {}, in[1])); }},
             {"packed rows, no weight",
              {make.normal({2, 2, 9}), make.normal({2, 2, 9})},
              [=](const Tensors& in) { return both(add_rms_norm(packed(in[0]), packed(in[1]))); }},
             {"the sum alone",
              {make.normal({3, 4}), make.normal({3, 4}), make.normal({4})},
              [](const Tensors& in) -> Tensors { return {add_rms_norm(in[0], in[1], in[2]).sum}; }},
             {"the normed alone, one addend twice",
              {make.normal({3, 4}), make.normal({4})},
              [](const Tensors& in) -> Tensors { return {add_rms_norm(in[0], in[0], in[1]).normed}; }},
             {"no rows", {make.normal({0, 4}), make.normal({0, 4}), make.normal({4})}, added},
         };
       }},
      {"add_layer_norm",
       [=](SampleMaker& make) -> std::vector<OpSample> {
         const auto both = [](const NormAndSum& result) -> Tensors { return {result.normed, result.sum}; };
         return {
             {"2 x 3 x 5",
              {make.normal({2, 3, 5}), make.normal({2, 3, 5}), make.normal({5}), make.normal({5})},
              [=](const Tensors& in) { return both(add_layer_norm(in[0], in[1], in[2], in[3])); }},
             {"no residual, transposed in and out",
              {make.normal({4, 3}), make.normal({4}), make.normal({4})},
              [=](const Tensors& in) -> Tensors {
                const NormAndSum result = add_layer_norm(across(in[0]), {}, in[1], in[2]);
                return {across(result.normed), across(result.sum)};
              }},
             {"packed rows, neither weight nor bias",
              {make.normal({2, 2, 9}), make.normal({2, 2, 9})},
              [=](const Tensors& in) { return both(add_layer_norm(packed(in[0]), packed(in[1]))); }},
             {"the sum alone",
              {make.normal({3, 4}), make.normal({3, 4})},
              [](const Tensors& in) -> Tensors { return {add_layer_norm(in[0], in[1]).sum}; }},
         };
       }},
      {"layer_norm",
       [=](SampleMaker& make) -> std::vector<OpSample> {
         const auto full = [](const Tensors& in) -> Tensors { return {layer_norm(in[0], in[1], in[2])}; };
         return {
             {"2 x 3 x 5, weight and bias", {make.normal({2, 3, 5}), make.normal({5}), make.normal({5})}, full},
             {"weight only",
              {make.normal({3, 4}), make.normal({4})},
              [](const Tensors& in) -> Tensors { return {layer_norm(in[0], in[1])}; }},
             {"bias only, eps 0.5",
              {make.normal({3, 4}), make.normal({4})},
              [](const Tensors& in) -> Tensors { return {layer_norm(in[0], {}, in[1], 0.5)}; }},
             {"neither", {make.normal({3, 6})}, [](const Tensors& in) -> Tensors { return {layer_norm(in[0])}; }},
             {"one channel", {make.normal({3, 1}), make.normal({1}), make.normal({1})}, full},
             {"packed rows, a weight in a wider one",
              {make.normal({2, 2, 9}), make.normal({9}), make.normal({4})},
              [=](const Tensors& in) -> Tensors { return {layer_norm(packed(in[0]), packed(in[1]), in[2])}; }},
             {"transposed in and out",
              {make.normal({4, 3}), make.normal({4}), make.normal({4})},
              [=](const Tensors& in) -> Tensors { return {across(layer_norm(across(in[0]), in[1], in[2]))}; }},
             {"no rows", {make.normal({0, 4}), make.normal({4}), make.normal({4})}, full},
         };
       }},
  };
}

}  // namespace monoid

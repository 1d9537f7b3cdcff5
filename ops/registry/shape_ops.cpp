#include "monoid/ops/shape_ops.h"

#include "monoid/ops/registry.h"

namespace monoid {
namespace {

// A sample of a call with one input.
template <class Call>
OpSample sample(const char* label, const Tensor& x, Call call) {
  return {label, {x}, [call](const Tensors& in) -> Tensors { return {call(in[0])}; }};
}

}  // namespace

OpList shape_ops() {
  return {
      {"reshape",
       [](SampleMaker& make) -> std::vector<OpSample> {
         const auto flat = [](const Tensor& x) { return reshape(x, {-1}); };
         return {sample("one extent worked out", make.normal({2, 6}),
                        [](const Tensor& x) {
                          return reshape(x, {3, -1});
                        }),
                 sample("to rank 0", make.normal({1, 1}), [](const Tensor& x) { return reshape(x, {}); }),
                 sample("a permuted tensor, copied", make.normal({2, 3, 2}),
                        [flat](const Tensor& x) { return flat(transpose(x, 0, 2)); }),
                 sample("no elements", make.normal({0, 3}), flat)};
       }},
      {"transpose",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a matrix", make.normal({3, 4}), [](const Tensor& x) { return transpose(x, 0, 1); }),
                 sample("outer axes of three", make.normal({2, 3, 4}),
                        [](const Tensor& x) { return transpose(x, 0, -1); })};
       }},
      {"permute",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a cycle of three axes", make.normal({2, 3, 4}), [](const Tensor& x) {
           return permute(x, {2, 0, -2});
         })};
       }},
      {"slice",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("the middle of an inner axis", make.normal({2, 5, 2}),
                        [](const Tensor& x) { return slice(x, 1, 1, -1); }),
                 sample("nothing", make.normal({3}), [](const Tensor& x) { return slice(x, 0, 1, 1); }),
                 {"overlapping slices of one tensor", {make.normal({5})}, [](const Tensors& in) -> Tensors {
                    return {slice(in[0], 0, 0, 3), slice(in[0], 0, 1, 4), slice(in[0], 0, 2, 5)};
                  }}};
       }},
      {"select",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a column", make.normal({3, 4}), [](const Tensor& x) { return select(x, -1, 2); }),
                 sample("the last row", make.normal({3, 4}), [](const Tensor& x) { return select(x, 0, -1); }),
                 sample("the element of a vector", make.normal({3}), [](const Tensor& x) { return select(x, 0, 1); })};
       }},
      {"expand",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("an inner axis and a new one", make.normal({3, 1, 2}),
                        [](const Tensor& x) {
                          return expand(x, {2, 3, 4, 2});
                        }),
                 sample("a number", make.normal({}), [](const Tensor& x) {
                   return expand(x, {2, 3});
                 })};
       }},
      {"squeeze",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a middle axis", make.normal({3, 1, 2}), [](const Tensor& x) { return squeeze(x, 1); })};
       }},
      {"unsqueeze",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("in front", make.normal({3, 2}), [](const Tensor& x) { return unsqueeze(x, 0); }),
                 sample("at the end", make.normal({3, 2}), [](const Tensor& x) { return unsqueeze(x, -1); })};
       }},
      {"split",
       [](SampleMaker& make) -> std::vector<OpSample> {
         const auto cut = [](const Tensors& in) { return split(in[0], 1, {2, 0, 3}); };
         const auto first = [](const Tensors& in) -> Tensors { return {split(in[0], -1, {1, 2, 1})[0]}; };
         return {{"three pieces, one empty", {make.normal({2, 5, 2})}, cut},
                 {"unused pieces", {make.normal({3, 4})}, first}};
       }},
      {"concat",
       [](SampleMaker& make) -> std::vector<OpSample> {
         const auto join = [](const Tensors& in) -> Tensors { return {concat(in, -2)}; };
         const auto twice = [](const Tensors& in) -> Tensors { return {concat({in[0], transpose(in[0], 0, 1)}, 0)}; };
         return {{"three, one empty", {make.normal({2, 2, 3}), make.normal({2, 0, 3}), make.normal({2, 1, 3})}, join},
                 {"one tensor twice, once transposed", {make.normal({3, 3})}, twice}};
       }},
      {"stack",
       [](SampleMaker& make) -> std::vector<OpSample> {
         const auto last = [](const Tensors& in) -> Tensors { return {stack(in, -1)}; };
         return {{"along a new last axis", {make.normal({2, 3}), make.normal({2, 3})}, last},
                 {"numbers", {make.normal({}), make.normal({})}, last}};
       }},
      {"flip",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a middle axis", make.normal({2, 3, 2}), [](const Tensor& x) { return flip(x, 1); }),
                 sample("no elements", make.normal({2, 0}), [](const Tensor& x) { return flip(x, 1); })};
       }},
      {"pad",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("both ends", make.normal({2, 3, 2}), [](const Tensor& x) { return pad(x, 1, 2, 1, 0.5); }),
                 sample("with zeros", make.normal({3, 2}), [](const Tensor& x) { return pad(x, 0, 1, 2); }),
                 sample("an empty axis", make.normal({2, 0}), [](const Tensor& x) { return pad(x, 1, 0, 2); })};
       }},
      {"gather",
       [](SampleMaker& make) -> std::vector<OpSample> {
         const auto along = [](int axis, const Tensor& index) {
           return [axis, index](const Tensors& in) -> Tensors { return {gather(in[0], axis, index)}; };
         };
         const Tensor i32 = make.integers({4, 2}, 3).to(DType::i32);
         return {{"columns, with repeats", {make.normal({2, 3})}, along(1, make.integers({2, 5}, 3))},
                 {"rows, by i32", {make.normal({3, 2})}, along(0, i32)},
                 {"a middle axis of a transposed tensor",
                  {make.normal({3, 3, 2})},
                  [index = make.integers({2, 2, 3}, 3)](const Tensors& in) -> Tensors {
                    return {gather(transpose(in[0], 0, 2), 1, index)};
                  }},
                 {"nothing", {make.normal({2, 3})}, along(1, make.integers({2, 0}, 1))}};
       }},
      {"contiguous",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a transposed matrix", make.normal({3, 4}),
                        [](const Tensor& x) { return contiguous(transpose(x, 0, 1)); })};
       }},
  };
}

}  // namespace monoid

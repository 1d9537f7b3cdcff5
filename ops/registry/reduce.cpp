#include "monoid/ops/reduce.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// A sample of a call with one input.
template <class Call>
OpSample sample(const char* label, const Tensor& x, Call call) {
  return {label, {x}, [call](const Tensors& in) -> Tensors { return {call(in[0])}; }};
}

}  // namespace

OpList reduce_ops() {
  return {
      {"sum",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {
             sample("all of 3 x 4", make.normal({3, 4}), [](const Tensor& x) { return sum(x); }),
             sample("all of a number", make.normal({}), [](const Tensor& x) { return sum(x); }),
             sample("a last axis longer than the lanes", make.normal({37}), [](const Tensor& x) { return sum(x, -1); }),
             sample("the middle axis, kept", make.normal({2, 5, 3}), [](const Tensor& x) { return sum(x, 1, true); }),
             sample("the rows of a transposed matrix", make.normal({4, 3}),
                    [](const Tensor& x) { return sum(transpose(x, 0, 1), 0); }),
             sample("an axis without elements", make.normal({2, 0}), [](const Tensor& x) { return sum(x, 1); })};
       }},
      {"mean",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("all", make.normal({3, 4}), [](const Tensor& x) { return mean(x); }),
                 sample("the last axis, kept", make.normal({3, 4}), [](const Tensor& x) { return mean(x, -1, true); })};
       }},
      {"variance",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("all", make.normal({3, 4}), [](const Tensor& x) { return variance(x); }),
                 sample("a leading axis, corrected", make.normal({5, 3}),
                        [](const Tensor& x) { return variance(x, 0, false, 1); })};
       }},
      {"max",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("all", make.normal({3, 4}), [](const Tensor& x) { return max(x); }),
                 sample("the last axis", make.normal({3, 4}), [](const Tensor& x) { return max(x, 1); }),
                 sample("a leading axis, kept", make.normal({4, 3}), [](const Tensor& x) { return max(x, 0, true); })};
       }},
      {"min",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("all", make.normal({3, 4}), [](const Tensor& x) { return min(x); }),
                 sample("a middle axis", make.normal({2, 4, 3}), [](const Tensor& x) { return min(x, 1); })};
       }},
      {"argmax",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("the last axis", make.normal({3, 4}), [](const Tensor& x) { return argmax(x, -1); })};
       },
       false},
      {"argmin",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {
             sample("a leading axis, kept", make.normal({4, 3}), [](const Tensor& x) { return argmin(x, 0, true); })};
       },
       false},
      {"logsumexp",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {
             sample("all", make.normal({3, 4}), [](const Tensor& x) { return logsumexp(x); }),
             sample("the last axis, kept", make.normal({3, 4}), [](const Tensor& x) { return logsumexp(x, 1, true); }),
             sample("a middle axis", make.normal({2, 4, 3}), [](const Tensor& x) { return logsumexp(x, 1); })};
       }},
      {"sum_to",
       [](SampleMaker& make) -> std::vector<OpSample> {
         return {sample("a bias", make.normal({2, 3, 4}), [](const Tensor& x) { return sum_to(x, {4}); }),
                 sample("outer and inner axes", make.normal({2, 3, 4}),
                        [](const Tensor& x) {
                          return sum_to(x, {2, 1, 1});
                        }),
                 sample("axes that do not merge", make.normal({2, 3, 2, 2}),
                        [](const Tensor& x) {
                          return sum_to(x, {3, 1, 2});
                        }),
                 sample("a number", make.normal({2, 3}), [](const Tensor& x) { return sum_to(x, {}); })};
       }},
  };
}

}  // namespace monoid

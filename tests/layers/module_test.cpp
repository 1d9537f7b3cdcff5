#include "monoid/layers/module.h"

#include "monoid/core/random.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

class Leaf : public Module {
 public:
  explicit Leaf(double value) : weight(Tensor::full({2, 3}, value).set_requires_grad()), table(Tensor::full({4}, 7)) {}
  void visit(Visitor& visitor) override {
    visitor.parameter("weight", weight);
    visitor.buffer("table", table);
  }
  Tensor weight, table;
};

class Pair : public Module {
 public:
  void visit(Visitor& visitor) override {
    visitor.child("first", first);
    visitor.child("blocks.1", second);
    visitor.parameter("scale", scale);
  }
  Leaf first{1}, second{2};
  Tensor scale = Tensor::ones({1}).set_requires_grad();
};

std::map<std::string, Tensor> as_map(Module& module) {
  std::map<std::string, Tensor> tensors;
  for (const NamedTensor& entry : state_dict(module)) tensors[entry.name] = entry.value.clone();
  return tensors;
}

std::string load_error(Module& module, const std::map<std::string, Tensor>& tensors) {
  try {
    load_state_dict(module, tensors);
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

}  // namespace

TEST_CASE("a module names its tensors once, dotted and in order; buffers are no parameters", "[module]") {
  Pair pair;
  std::string names;
  for (const NamedTensor& entry : state_dict(pair)) names += entry.name + " ";
  CHECK(names == "first.weight first.table blocks.1.weight blocks.1.table scale ");
  names.clear();
  for (const NamedTensor& entry : parameters(pair)) names += entry.name + " ";
  CHECK(names == "first.weight blocks.1.weight scale ");
  CHECK(parameter_count(pair) == 13);
}

TEST_CASE("a state_dict loads back into a module of the same shape, across dtypes", "[module]") {
  Pair from, to;
  from.second.weight.fill(5);
  from.first.table.fill(-1);
  cast_to(to, DType::f64);
  const Tensor handle = to.second.weight;
  load_state_dict(to, as_map(from));
  CHECK(to.second.weight.dtype() == DType::f64);
  test::check_close(to.second.weight, from.second.weight.to(DType::f64), 0);
  test::check_close(to.first.table, from.first.table.to(DType::f64), 0);
  test::check_identical(handle, to.second.weight);  // loading writes into the tensors an optimizer holds
}

TEST_CASE("a state_dict that does not fit is one error listing every difference, and changes nothing", "[module]") {
  Pair pair;
  std::map<std::string, Tensor> tensors = as_map(pair);
  tensors["first.wieght"] = Tensor::full({2, 3}, 9);
  tensors.erase("first.weight");
  tensors["scale"] = Tensor::full({2}, 9);
  tensors["blocks.1.weight"].fill(9);
  const std::string message = load_error(pair, tensors);
  CHECK_THAT(message, ContainsSubstring("load_state_dict: 3 tensors do not fit"));
  CHECK_THAT(message, ContainsSubstring("missing: first.weight [2, 3]"));
  CHECK_THAT(message, ContainsSubstring("unexpected: first.wieght [2, 3]; did you mean first.weight?"));
  CHECK_THAT(message, ContainsSubstring("wrong shape: scale is [2], wanted [1]"));
  CHECK(pair.second.weight.to_vector<float>()[0] == 2);
}

TEST_CASE("a long list of differences is cut and counted", "[module]") {
  Pair pair;
  std::map<std::string, Tensor> tensors = as_map(pair);
  for (int i = 0; i < 20; ++i) tensors[str("other.", i)] = Tensor::ones({1});
  const std::string message = load_error(pair, tensors);
  CHECK_THAT(message, ContainsSubstring("20 tensors do not fit"));
  CHECK_THAT(message, ContainsSubstring("and 12 more"));
}

TEST_CASE("casting keeps what is trained trained; zero_grad forgets gradients", "[module]") {
  Pair pair;
  pair.scale.set_grad(Tensor::ones({1}));
  zero_grad(pair);
  CHECK_FALSE(pair.scale.grad().defined());
  cast_to(pair, DType::f64);
  CHECK(pair.scale.requires_grad());
  CHECK_FALSE(pair.first.table.requires_grad());
  CHECK(pair.first.table.dtype() == DType::f64);
  CHECK_THROWS_WITH(cast_to(pair, DType::i64), ContainsSubstring("f32, f64 or bf16, got i64"));
}

}  // namespace monoid

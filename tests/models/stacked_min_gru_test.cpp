#include "monoid/models/stacked_min_gru.h"

#include "monoid/core/parallel.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/models/model_support.h"

namespace monoid {
namespace {

std::vector<StackedMinGruConfig> variants() {
  return {{.num_tokens = 11, .num_layers = 2, .input_size = 4, .hidden_size = 6},
          {.num_tokens = 7, .num_layers = 3, .input_size = 5, .hidden_size = 3, .bias = false},
          {.num_tokens = 5, .num_layers = 2, .input_size = 4, .hidden_size = 4, .proj_down = false}};
}

StackedMinGru make(const StackedMinGruConfig& config, DType dtype = DType::f64) {
  Generator init(1);
  StackedMinGru model(config, init);
  cast_to(model, dtype);
  return model;
}

// The reference keeps these and never uses them.
std::set<std::string> unused_in(const StackedMinGruConfig& config) {
  std::set<std::string> names;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = str("stack.layers.", layer, ".");
    names.insert({prefix + "output_ln.weight", prefix + "output_ln.bias"});
    if (config.proj_down) continue;
    names.insert(prefix + "down_projection.weight");
    if (config.bias) names.insert(prefix + "down_projection.bias");
  }
  if (config.proj_down) names.insert({"stack.final_down_projection.weight", "stack.final_down_projection.bias"});
  return names;
}

}  // namespace

TEST_CASE("stacked-min-gru's parameter count follows the closed form", "[stacked_min_gru]") {
  for (const StackedMinGruConfig& config : variants()) {
    StackedMinGru model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
}

TEST_CASE("stacked-min-gru passes the gradient check by every parameter and by its state",
          "[stacked_min_gru][gradient]") {
  for (StackedMinGruConfig config : variants()) {
    config.num_tokens = 5;
    StackedMinGru model = make(config);
    test::check_model_gradients(model, test::tokens_of(model, {2, 3}));
  }
}

TEST_CASE("stacked-min-gru: one call, chunks and single steps give the same logits and state",
          "[stacked_min_gru][streaming]") {
  for (const StackedMinGruConfig& config : variants()) {
    StackedMinGru in_double = make(config), in_float = make(config, DType::f32);
    test::check_model_streaming(in_double, 1e-12);
    test::check_model_streaming(in_float, 2e-5);
    test::check_gradients_through_state(in_double, 1e-11);
  }
}

TEST_CASE("stacked-min-gru names its state, and goes on from a file bit for bit", "[stacked_min_gru][streaming]") {
  StackedMinGru model = make(variants().front(), DType::f32);
  State state;
  model.forward(test::tokens_of(model, {3, 1}), &state);
  std::string names;
  for (const NamedTensor& entry : state.tensors()) names += entry.name + " ";
  CHECK(names == "layers.0.conv_tail layers.0.hidden layers.1.conv_tail layers.1.hidden ");
  CHECK(state.find("layers.1.hidden").shape() == Shape{3, 6});
  CHECK(state.find("layers.1.conv_tail").shape() == Shape{3, 2, 6});
  test::check_state_through_file(model);
  CHECK_THROWS_WITH(model.forward(test::tokens_of(model, {2, 4}), &state),
                    ContainsSubstring("stacked-min-gru: the state's 'layers.0.conv_tail' is f32[3, 2, 6]"));
}

TEST_CASE("stacked-min-gru sees nothing that comes later", "[stacked_min_gru]") {
  StackedMinGru model = make(variants().front());
  const Tensor tokens = test::tokens_of(model, {1, 9});
  Tensor changed = tokens.clone();
  changed.data<int64_t>()[5] = (changed.data<int64_t>()[5] + 1) % model.vocabulary();
  const Tensor difference = abs(model.forward(changed) - model.forward(tokens));
  CHECK(sum(slice(difference, 1, 0, 5)).item() == 0);
  CHECK(sum(slice(difference, 1, 5, 9)).item() > 0);
}

TEST_CASE("stacked-min-gru's loss reaches exactly the parameters that the reference uses", "[stacked_min_gru]") {
  for (const StackedMinGruConfig& config : variants()) {
    StackedMinGru model = make(config);
    test::check_gradient_reaches_all_but(model, unused_in(config));
  }
}

TEST_CASE("stacked-min-gru gives the same bits on any number of threads", "[stacked_min_gru]") {
  const auto run = [&](int count) {
    const int before = threads();
    set_threads(count);
    StackedMinGru model =
        make({.num_tokens = 40, .num_layers = 2, .input_size = 48, .hidden_size = 56, .dropout = 0.1}, DType::f32);
    Generator dropout(6);
    Tape tape;
    const Tensor loss =
        model.loss(test::tokens_of(model, {4, 130}), test::tokens_of(model, {4, 130}, 5), nullptr, &dropout);
    tape.backward(loss);
    Tensors results{loss.detach()};
    for (const Tensor& gradient : test::gradients(model)) {
      if (gradient.defined()) results.push_back(gradient);
    }
    set_threads(before);
    return results;
  };
  const Tensors one = run(1);
  for (const int count : {2, 5}) {
    const Tensors many = run(count);
    for (size_t i = 0; i < one.size(); ++i) test::check_identical(many[i], one[i]);
  }
}

TEST_CASE("stacked-min-gru refuses a configuration that makes no model", "[stacked_min_gru]") {
  Generator init(1);
  CHECK_THROWS_WITH(StackedMinGru({.num_tokens = 0}, init), ContainsSubstring("num_tokens is 0"));
  CHECK_THROWS_WITH(StackedMinGru({.dropout = 1}, init), ContainsSubstring("stacked-min-gru: dropout is 1"));
  CHECK_THROWS_WITH(StackedMinGru({.proj_down = false}, init),
                    ContainsSubstring("stacked-min-gru: without proj_down") && ContainsSubstring("make them equal"));
}

}  // namespace monoid

#include <cmath>

#include "monoid/core/tape.h"
#include "monoid/layers/mamba_min_gru.h"
#include "monoid/layers/wrapped_min_gru.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/norm.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/layers/layer_support.h"

namespace monoid {
namespace {

// The same numbers every time, so that no test depends on those before it.
Tensor normal(const Shape& shape, DType dtype = DType::f64) {
  Generator generator(7);
  return random_normal(shape, generator, 0, 1, dtype);
}

Tensor positive(const Shape& shape, DType dtype = DType::f64) {
  Generator generator(8);
  return random_uniform(shape, generator, 0.1, 2, dtype);
}

std::map<std::string, Tensor> by_name(Module& module) {
  std::map<std::string, Tensor> found;
  for (const NamedTensor& parameter : parameters(module)) found[parameter.name] = parameter.value;
  return found;
}

double g(double x) { return x >= 0 ? x + 0.5 : 1 / (1 + std::exp(-x)); }

// The recurrence as a loop over one packed weight [2 * hidden, in] and bias.
std::vector<double> looped_min_gru(const Tensor& x, const Tensor& weight, const Tensor& bias, double start) {
  const int64_t time = x.size(1), in = x.size(2), hidden = weight.size(0) / 2;
  const std::vector<double> xs = x.to_vector<double>(), w = weight.to_vector<double>(), b = bias.to_vector<double>();
  std::vector<double> states;
  for (int64_t batch = 0; batch < x.size(0); ++batch) {
    std::vector<double> h(static_cast<size_t>(hidden), start);
    for (int64_t t = 0; t < time; ++t) {
      const auto projected = [&](int64_t row) {
        double total = b[static_cast<size_t>(row)];
        for (int64_t i = 0; i < in; ++i)
          total += w[static_cast<size_t>(row * in + i)] * xs[static_cast<size_t>((batch * time + t) * in + i)];
        return total;
      };
      for (int64_t c = 0; c < hidden; ++c) {
        const double z = 1 / (1 + std::exp(-projected(hidden + c)));
        double& state = h[static_cast<size_t>(c)];
        state = (1 - z) * state + z * g(projected(c));
        states.push_back(state);
      }
    }
  }
  return states;
}

StackedMambaMinGru stack_of(StackedMambaMinGruOptions options, bool causal, DType dtype = DType::f64) {
  options.causal = causal;
  Generator init(5);
  StackedMambaMinGru stack(options, init);
  cast_to(stack, dtype);
  return stack;
}

// For finite differences through norms of states that differ little, whose slopes change fast.
constexpr double kSmallStep = 2e-6;

const StackedMambaMinGruOptions kSmall{.num_layers = 2, .input_size = 3, .hidden_size = 6};

std::vector<StackedMambaMinGruOptions> variants() {
  return {kSmall,
          {.num_layers = 1, .input_size = 4, .hidden_size = 5, .bias = false},
          {.num_layers = 2, .input_size = 5, .hidden_size = 5, .proj_down = false}};
}

// A causal module as an OutputAndState layer: its position is [conv_tail | hidden] as rows of one tensor.
test::RecurrentForward forward_of(const MambaModule& module) {
  return [&](const Tensor& x, const Tensor& state) -> OutputAndState {
    MambaModule::Position position;
    if (state.defined()) position = {slice(state, 1, 0, 2), select(state, 1, 2)};
    const Tensor output = module.resume(x, position);
    return {output, concat({position.conv_tail, unsqueeze(position.hidden, 1)}, 1)};
  };
}

}  // namespace

TEST_CASE("a state stands for a pre-activation: x + 0.5 above zero, the sigmoid below, differentiable", "[min_gru]") {
  const Tensor x = Tensor::from(std::vector<double>{-30, -1, 0, 1e-3, 2}, {5});
  const std::vector<double> found = positive_state(x).to_vector<double>();
  for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(g(x.to_vector<double>()[i])).epsilon(1e-14));
  test::check_gradients("positive_state", {"both sides of zero",
                                           {Tensor::from(std::vector<double>{-3, -0.1, 0.1, 3}, {4})},
                                           [](const Tensors& in) { return Tensors{positive_state(in[0])}; }});
}

TEST_CASE("StackMinGru starts from 0.5 where no state is given, and projects hidden first, gate second", "[min_gru]") {
  Generator init(1);
  StackMinGru gru(3, 4, Bias::learned, init);
  cast_to(gru, DType::f64);
  std::map<std::string, Tensor> all = by_name(gru);
  all.at("to_hidden_and_gate.bias").copy_from(normal({8}));
  const Tensor x = normal({2, 6, 3});
  const auto expected = [&](double start) {
    return Tensor::from(
        looped_min_gru(x, all.at("to_hidden_and_gate.weight"), all.at("to_hidden_and_gate.bias"), start), {2, 6, 4});
  };
  const OutputAndState fresh = gru.forward(x);
  test::check_close(fresh.output, expected(0.5), 1e-13);
  test::check_close(fresh.state, contiguous(select(fresh.output, 1, -1)), 0);
  test::check_close(gru.forward(x, Tensor::full({2, 4}, 1.25, DType::f64)).output, expected(1.25), 1e-13);
}

TEST_CASE("the stacks start from Xavier's distribution with zero biases", "[min_gru]") {
  Generator init(2);
  StackMinGru gru(30, 50, Bias::learned, init);
  double largest = 0;
  for (double value : by_name(gru).at("to_hidden_and_gate.weight").to_vector<float>())
    largest = std::max(largest, std::abs(value));
  const double bound = std::sqrt(6.0 / 80);  // of each half alone, not of the packed weight
  CHECK(largest <= bound);
  CHECK(largest > 0.99 * bound);
  StackedMambaMinGru stack({.num_layers = 1, .input_size = 20, .hidden_size = 30}, init);
  for (const auto& [name, value] : by_name(stack)) {
    if (!name.starts_with("layers.") || !name.ends_with(".bias")) continue;
    CAPTURE(name);
    CHECK(sum(abs(value)).item() == 0);
  }
}

TEST_CASE("StackMinGru: gradients, and parallel, step by step and chunked are the same", "[min_gru][gradient]") {
  Generator init(3);
  StackMinGru gru(3, 4, Bias::learned, init), bare(5, 5, Bias::none, init);
  const auto outputs = [](const OutputAndState& result) -> Tensors { return {result.output, result.state}; };
  test::check_layer_gradients("StackMinGru", gru, {normal({2, 4, 3}), positive({2, 4})},
                              [&](const Tensors& in) { return outputs(gru.forward(in[0], in[1])); });
  test::check_layer_gradients("StackMinGru, fresh", gru, {normal({2, 4, 3})},
                              [&](const Tensors& in) { return outputs(gru.forward(in[0])); });
  const auto forward = [&](const Tensor& x, const Tensor& state) { return bare.forward(x, state); };
  test::check_all_forms_agree(forward, 5, positive({3, 5}, DType::f32), 2e-6);
  cast_to(bare, DType::f64);
  test::check_all_forms_agree(forward, 5, positive({3, 5}), 1e-13);
}

TEST_CASE("WrappedMinGru has a GRU's shapes, in one and both directions, batch or time first", "[min_gru]") {
  for (const bool bidirectional : {false, true}) {
    CAPTURE(bidirectional);
    const int64_t directions = bidirectional ? 2 : 1;
    WrappedMinGruOptions options{.input_size = 3, .hidden_size = 4, .num_layers = 3, .bidirectional = bidirectional};
    Generator init(4), again(4);
    WrappedMinGru batch_first(options, init);
    options.batch_first = false;
    WrappedMinGru time_first(options, again);
    int64_t expected = 0;
    for (const int64_t in : {int64_t{3}, 4 * directions, 4 * directions}) expected += directions * 2 * (in + 1) * 4;
    CHECK(parameter_count(batch_first) == expected);
    const Tensor x = normal({2, 7, 3}, DType::f32), h_0 = normal({3 * directions, 2, 4}, DType::f32);
    const auto [y, h_n] = batch_first.forward(x, h_0);
    CHECK(y.shape() == Shape{2, 7, 4 * directions});
    CHECK(h_n.shape() == h_0.shape());
    const auto [y_time, h_time] = time_first.forward(transpose(x, 0, 1), h_0);
    test::check_close_in_norm(transpose(y_time, 0, 1), y, 1e-6);
    test::check_close_in_norm(h_time, h_n, 1e-6);
    // The last layer's last states: at the end forward, at time 0 backward.
    test::check_identical(contiguous(select(h_n, 0, -directions)), contiguous(slice(select(y, 1, -1), 1, 0, 4)));
    if (bidirectional)
      test::check_identical(contiguous(select(h_n, 0, -1)), contiguous(slice(select(y, 1, 0), 1, 4, 8)));
  }
}

TEST_CASE("WrappedMinGru's backward direction is its cell on the reversed sequence", "[min_gru]") {
  Generator init(5), cell_init(6);
  WrappedMinGru both({.input_size = 3, .hidden_size = 4, .bidirectional = true}, init);
  WrappedMinGru one({.input_size = 3, .hidden_size = 4}, cell_init);
  std::map<std::string, Tensor> cell;
  for (const auto& [name, value] : by_name(both)) {
    if (name.starts_with("layers.0.bwd.")) cell["layers.0." + name.substr(13)] = value.detach();
  }
  load_state_dict(one, cell);
  const Tensor x = normal({2, 7, 3}, DType::f32);
  const Tensor backward = slice(both.forward(x).output, 2, 4, 8);
  test::check_identical(contiguous(flip(backward, 1)), one.forward(flip(x, 1)).output);
}

TEST_CASE("WrappedMinGru's h_0 is a pre-activation, and resume goes on from h_n", "[min_gru][streaming]") {
  Generator init(6);
  WrappedMinGru gru({.input_size = 3, .hidden_size = 4, .num_layers = 2, .bias = false}, init);
  cast_to(gru, DType::f64);
  const Tensor x = normal({2, 9, 3}), h_0 = normal({2, 2, 4});
  test::check_identical(gru.forward(x).output, gru.forward(x, Tensor::zeros({2, 2, 4}, DType::f64)).output);
  test::check_identical(gru.forward(x, h_0).output, gru.resume(x, positive_state(h_0)).output);
  const test::RecurrentForward forward = [&](const Tensor& piece, const Tensor& state) {
    return state.defined() ? gru.resume(piece, state) : gru.forward(piece);
  };
  const OutputAndState whole = gru.forward(x);
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {4}, {2, 7}}) {
    const OutputAndState pieces = test::run_in_pieces(forward, x, {}, lengths);
    test::check_close_in_norm(pieces.output, whole.output, 1e-13);
    test::check_close_in_norm(pieces.state, whole.state, 1e-13);
  }
  CHECK(gru.forward(Tensor::zeros({0, 5, 3}, DType::f64)).output.shape() == Shape{0, 5, 4});
  test::check_identical(gru.resume(Tensor::zeros({2, 0, 3}, DType::f64), whole.state).state, whole.state);
}

TEST_CASE("WrappedMinGru passes the gradient check by input, h_0 and parameters", "[min_gru][gradient]") {
  for (const bool bidirectional : {false, true}) {
    Generator init(7);
    WrappedMinGru gru(
        {.input_size = 2, .hidden_size = 3, .num_layers = 2, .bidirectional = bidirectional, .batch_first = false},
        init);
    test::check_layer_gradients("WrappedMinGru", gru, {normal({4, 2, 2}), normal({bidirectional ? 4 : 2, 2, 3})},
                                [&](const Tensors& in) -> Tensors {
                                  const auto [y, h_n] = gru.forward(in[0], in[1]);
                                  return {y, h_n};
                                });
  }
}

TEST_CASE("WrappedMinGru explains shapes that do not fit", "[min_gru]") {
  Generator init(8);
  const WrappedMinGru gru({.input_size = 3, .hidden_size = 4, .num_layers = 2}, init);
  CHECK_THROWS_WITH(gru.forward(Tensor::zeros({2, 5, 4})), ContainsSubstring("f32[2, 5, 4], wanted [batch, time, 3]"));
  CHECK_THROWS_WITH(gru.forward(Tensor::zeros({2, 5, 3}), Tensor::zeros({1, 2, 4})),
                    ContainsSubstring("the initial state is f32[1, 2, 4]") && ContainsSubstring("[2, 2, 4]"));
  CHECK_THROWS_WITH(WrappedMinGru({.input_size = 3}, init), ContainsSubstring("hidden_size is 0"));
}

TEST_CASE("DenseConv3 sees one step either side, or two steps back", "[conv]") {
  Generator init(9);
  DenseConv3 conv(3, Bias::learned, init);
  cast_to(conv, DType::f64);
  const Tensor x = normal({2, 9, 3});
  Tensor changed = x.clone();
  for (int64_t batch = 0; batch < 2; ++batch) changed.data<double>()[(batch * 9 + 5) * 3] += 1;
  const auto touched = [&](const Tensor& after, const Tensor& before) {
    std::string steps;
    for (int64_t t = 0; t < 9; ++t)
      steps += sum(abs(select(after, 1, t) - select(before, 1, t))).item() > 0 ? '1' : '0';
    return steps;
  };
  CHECK(touched(conv.forward(changed), conv.forward(x)) == "000011100");
  CHECK(touched(conv.causal(changed).output, conv.causal(x).output) == "000001110");
  // The causal one is the other, one step late.
  test::check_close_in_norm(slice(conv.causal(x).output, 1, 1, 9), slice(conv.forward(x), 1, 0, 8), 1e-13);
  const auto causal = [&](const Tensor& piece, const Tensor& tail) { return conv.causal(piece, tail); };
  test::check_all_forms_agree(causal, 3, normal({2, 2, 3}), 1e-13);
  test::check_layer_gradients("DenseConv3", conv, {normal({2, 4, 3}), normal({2, 2, 3})},
                              [&](const Tensors& in) -> Tensors {
                                const auto [output, tail] = conv.causal(in[0], in[1]);
                                return {output, tail, conv.forward(in[0])};
                              });
}

TEST_CASE("the stack's parameter count follows the closed form, with the two parts that nothing uses",
          "[mamba_min_gru]") {
  for (const StackedMambaMinGruOptions& options : variants()) {
    StackedMambaMinGru stack = stack_of(options, false);
    CHECK(parameter_count(stack) == options.parameters());
    const std::map<std::string, Tensor> all = by_name(stack);
    CHECK(all.contains("layers.0.output_ln.weight"));
    CHECK(all.contains("final_down_projection.weight") == options.proj_down);
  }
  CHECK(StackedMambaMinGruOptions{.num_layers = 4, .input_size = 256, .hidden_size = 512}.parameters() == 6'976'768);
}

TEST_CASE("the stack passes the gradient check, causal or not, with and without h_0", "[mamba_min_gru][gradient]") {
  for (const StackedMambaMinGruOptions& options : variants()) {
    for (const bool causal : {false, true}) {
      CAPTURE(causal, options.bias, options.proj_down);
      StackedMambaMinGru stack = stack_of(options, causal);
      const Tensor x = normal({2, 4, options.input_size});
      test::check_layer_gradients(
          "StackedMambaMinGru", stack, {x}, [&](const Tensors& in) { return Tensors{stack.forward(in[0])}; },
          kSmallStep);
      Tensors inputs{x};
      for (int64_t layer = 0; layer < options.num_layers; ++layer) inputs.push_back(normal({2, options.hidden_size}));
      test::check_layer_gradients(
          "StackedMambaMinGru, h_0", stack, inputs,
          [&](const Tensors& in) {
            Tensors h(in.begin() + 1, in.begin() + static_cast<std::ptrdiff_t>(inputs.size()));
            Tensors outputs{stack.forward(in[0], &h)};
            outputs.insert(outputs.end(), h.begin(), h.end());
            return outputs;
          },
          kSmallStep);
    }
  }
}

TEST_CASE("a MambaModule hands on its last normed state, from which h_0 starts anew", "[mamba_min_gru]") {
  Generator init(10);
  const MambaModule module(kSmall, init);
  const Tensor x = normal({2, 6, 3}, DType::f32);
  const auto [output, handed_on] = module.forward(x);
  REQUIRE(handed_on.shape() == Shape{2, 6});
  // gru_ln has unit gain and no offset at the start: mean 0, variance 1.
  test::check_close(mean(handed_on, {1}), Tensor::zeros({2}), 0, 1e-6);
  test::check_close(mean(square(handed_on), {1}), Tensor::ones({2}), 1e-2);
  test::check_identical(module.forward(x, Tensor::zeros({2, 6})).output, output);
  const auto [no_time, unchanged] = module.forward(Tensor::zeros({2, 0, 3}), handed_on);
  CHECK(no_time.shape() == Shape{2, 0, 3});
  test::check_identical(unchanged, handed_on);
}

TEST_CASE("a causal module: one call, chunks and single steps are the same, and equal its forward",
          "[mamba_min_gru][streaming]") {
  for (StackedMambaMinGruOptions options : variants()) {
    options.causal = true;
    Generator init(11);
    MambaModule module(options, init);
    test::check_all_forms_agree(forward_of(module), options.input_size,
                                positive({2, 3, options.hidden_size}, DType::f32), 5e-6);
    cast_to(module, DType::f64);
    test::check_all_forms_agree(forward_of(module), options.input_size, positive({2, 3, options.hidden_size}), 1e-12);
    const Tensor x = normal({2, 9, options.input_size});
    MambaModule::Position position;
    test::check_identical(module.resume(x, position), module.forward(x).output);
  }
}

TEST_CASE("a causal stack sees nothing that comes later, the reference's sees one step a layer", "[mamba_min_gru]") {
  const Tensor x = normal({1, 9, 3});
  Tensor changed = x.clone();
  changed.data<double>()[5 * 3] += 1;
  const auto first_difference = [&](bool causal) {
    const StackedMambaMinGru stack = stack_of(kSmall, causal);
    const Tensor difference = stack.forward(changed) - stack.forward(x);
    int64_t t = 0;
    while (sum(abs(select(difference, 1, t))).item() == 0) ++t;
    return t;
  };
  CHECK(first_difference(true) == 5);
  CHECK(first_difference(false) == 3);
}

TEST_CASE("the stack drops out on its strands only when given a generator", "[mamba_min_gru]") {
  StackedMambaMinGruOptions options = kSmall;
  options.dropout = 0.5;
  const StackedMambaMinGru stack = stack_of(options, false);
  const Tensor x = normal({2, 6, 3});
  test::check_identical(stack.forward(x), stack_of(kSmall, false).forward(x));
  Generator first(9), again(9);
  const Tensor dropped = stack.forward(x, nullptr, &first);
  CHECK(dropped.to_vector<double>() != stack.forward(x).to_vector<double>());
  test::check_identical(stack.forward(x, nullptr, &again), dropped);
}

TEST_CASE("the stack explains what does not fit", "[mamba_min_gru]") {
  Generator init(12);
  CHECK_THROWS_WITH(StackedMambaMinGru({.num_layers = 1, .input_size = 3, .hidden_size = 4, .proj_down = false}, init),
                    ContainsSubstring("input_size is 3 and hidden_size 4; make them equal"));
  CHECK_THROWS_WITH(StackedMambaMinGru({.num_layers = 1, .input_size = 3}, init),
                    ContainsSubstring("hidden_size is 0"));
  const StackedMambaMinGru stack = stack_of(kSmall, false);
  CHECK_THROWS_WITH(stack.forward(normal({2, 4, 5})), ContainsSubstring("f64[2, 4, 5], wanted [batch, time, 3]"));
  Tensors one{normal({2, 6})};
  CHECK_THROWS_WITH(stack.forward(normal({2, 4, 3}), &one), ContainsSubstring("h_0 has 1 tensors"));
  const MambaModule module(kSmall, init);
  MambaModule::Position position;
  CHECK_THROWS_WITH(module.resume(normal({2, 4, 3}, DType::f32), position),
                    ContainsSubstring("make it with causal = true"));
}

}  // namespace monoid

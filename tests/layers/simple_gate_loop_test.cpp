#include "monoid/layers/simple_gate_loop.h"

#include "monoid/ops/elementwise.h"
#include "monoid/tests/layers/layer_support.h"

namespace monoid {
namespace {

Tensor normal(const Shape& shape, DType dtype = DType::f64) {
  Generator generator(7);
  return random_normal(shape, generator, 0, 1, dtype);
}

SimpleGateLoop make(const SimpleGateLoopOptions& options, DType dtype = DType::f64) {
  Generator init(1);
  SimpleGateLoop layer(options, init);
  cast_to(layer, dtype);
  return layer;
}

}  // namespace

TEST_CASE("SimpleGateLoop passes the gradient check by input, state and parameters", "[simple_gate_loop][gradient]") {
  for (const SimpleGateLoopOptions& options :
       {SimpleGateLoopOptions{.dim = 3}, {.dim = 3, .prenorm = false}, {.dim = 3, .post_ln = true, .reverse = true}}) {
    SimpleGateLoop layer = make(options);
    test::check_layer_gradients("SimpleGateLoop", layer, {normal({2, 4, 3}), normal({2, 3})}, [&](const Tensors& in) {
      const OutputAndState result = layer.forward(in[0], in[1]);
      return Tensors{result.output, result.state};
    });
  }
}

TEST_CASE("SimpleGateLoop: parallel, step by step and chunked are the same", "[simple_gate_loop][streaming]") {
  for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-13}, {DType::f32, 2e-6}}) {
    SimpleGateLoop layer = make({.dim = 5, .post_ln = true}, dtype);
    test::check_all_forms_agree([&](const Tensor& x, const Tensor& state) { return layer.forward(x, state); }, 5,
                                normal({3, 5}, dtype), tolerance);
  }
}

TEST_CASE("SimpleGateLoop in reverse is SimpleGateLoop of the sequence from its end", "[simple_gate_loop]") {
  SimpleGateLoop forward = make({.dim = 5}), reverse = make({.dim = 5, .reverse = true});
  const Tensor x = normal({2, 9, 5}), state = normal({2, 5});
  const OutputAndState there = reverse.forward(x, state), here = forward.forward(flip(x, 1), state);
  test::check_close_in_norm(there.output, flip(here.output, 1), 1e-14);
  test::check_close_in_norm(there.state, here.state, 1e-14);
}

TEST_CASE("SimpleGateLoop's decay is what is left of a state", "[simple_gate_loop]") {
  SimpleGateLoop layer = make({.dim = 5});
  const Tensor x = normal({2, 4, 5}), state = normal({2, 5});
  test::check_close_in_norm(layer.forward(x, state).state - layer.forward(x).state, layer.decay(x) * state, 1e-13);
  CHECK(layer.forward(normal({2, 0, 5}), state).output.shape() == Shape{2, 0, 5});
}

}  // namespace monoid

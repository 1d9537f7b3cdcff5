#include "monoid/layers/causal_conv.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/min_lstm.h"
#include "monoid/ops/elementwise.h"
#include "monoid/tests/layers/layer_support.h"

namespace monoid {
namespace {

Tensor normal(const Shape& shape, DType dtype = DType::f64) {
  static Generator generator(7);
  return random_normal(shape, generator, 0, 1, dtype);
}

// A hidden state is a mean of positive values.
Tensor positive(const Shape& shape, DType dtype = DType::f64) {
  static Generator generator(8);
  return random_uniform(shape, generator, 0.1, 2, dtype);
}

template <class Layer>
test::RecurrentForward forward_of(const Layer& layer) {
  return [&](const Tensor& x, const Tensor& state) { return layer.forward(x, state); };
}

template <class Layer>
void check_gradients_of(const std::string& name, Layer& layer, const Tensor& x, const Tensor& initial) {
  const auto outputs = [](const OutputAndState& result) -> Tensors { return {result.output, result.state}; };
  test::check_layer_gradients(name + ", fresh", layer, {x},
                              [&](const Tensors& in) { return outputs(layer.forward(in[0])); });
  test::check_layer_gradients(name + ", with state", layer, {x, initial},
                              [&](const Tensors& in) { return outputs(layer.forward(in[0], in[1])); });
}

// Both precisions, from a fresh start and from a state, in one call, in chunks and step by step.
template <class Layer>
void check_forms_of(Layer& layer, int64_t channels, const Tensor& initial) {
  test::check_all_forms_agree(forward_of(layer), channels, initial.to(DType::f32), 2e-6);
  cast_to(layer, DType::f64);
  test::check_all_forms_agree(forward_of(layer), channels, initial, 1e-13);
}

}  // namespace

TEST_CASE("MinGru passes the gradient check by input, state and parameters", "[min_gru][gradient]") {
  Generator init(1);
  MinGru same({.channels = 3, .inner = 3}, init), wide({.channels = 2, .inner = 3, .bias = Bias::learned}, init);
  check_gradients_of("MinGru", same, normal({2, 4, 3}), positive({2, 3}));
  check_gradients_of("MinGru with to_out", wide, normal({2, 4, 2}), positive({2, 3}));
}

TEST_CASE("MinLstm passes the gradient check by input, state and parameters", "[min_lstm][gradient]") {
  Generator init(2);
  MinLstm same({.channels = 3, .inner = 3}, init), wide({.channels = 2, .inner = 3, .bias = Bias::learned}, init);
  check_gradients_of("MinLstm", same, normal({2, 4, 3}), positive({2, 3}));
  check_gradients_of("MinLstm with to_out", wide, normal({2, 4, 2}), positive({2, 3}));
}

TEST_CASE("the causal convolutions pass the gradient check by input, tail and parameters", "[conv][gradient]") {
  Generator init(3);
  for (const int64_t time : {1, 4}) {
    CAPTURE(time);
    CausalDepthwiseConv plain(3, 3, Bias::none, init), biased(3, 2, Bias::learned, init);
    check_gradients_of("CausalDepthwiseConv", plain, normal({2, time, 3}), normal({2, 2, 3}));
    check_gradients_of("CausalDepthwiseConv with bias", biased, normal({2, time, 3}), normal({2, 1, 3}));
    CausalSeparableConv separable(3, 3, init);
    check_gradients_of("CausalSeparableConv", separable, normal({2, time, 3}), normal({2, 2, 3}));
  }
}

TEST_CASE("MinGru: parallel, step by step and chunked are the same", "[min_gru][streaming]") {
  Generator init(4);
  MinGru same({.channels = 5, .inner = 5}, init), wide({.channels = 4, .inner = 6}, init);
  check_forms_of(same, 5, positive({3, 5}));
  check_forms_of(wide, 4, positive({1, 6}));
}

TEST_CASE("MinLstm: parallel, step by step and chunked are the same", "[min_lstm][streaming]") {
  Generator init(5);
  MinLstm same({.channels = 5, .inner = 5}, init), wide({.channels = 4, .inner = 6}, init);
  check_forms_of(same, 5, positive({3, 5}));
  check_forms_of(wide, 4, positive({1, 6}));
}

TEST_CASE(
    "the causal convolutions: parallel, step by step and chunked are the same, also in pieces shorter than the kernel",
    "[conv][streaming]") {
  Generator init(6);
  for (const int64_t kernel : {1, 2, 3, 8}) {
    CAPTURE(kernel);
    CausalDepthwiseConv depthwise(5, kernel, Bias::learned, init);
    check_forms_of(depthwise, 5, normal({2, kernel - 1, 5}));
    CausalSeparableConv separable(4, kernel, init);
    check_forms_of(separable, 4, normal({1, kernel - 1, 4}));
  }
}

TEST_CASE("a causal convolution sees nothing that comes later", "[conv]") {
  Generator init(7);
  CausalSeparableConv conv(3, 4, init);
  cast_to(conv, DType::f64);
  const Tensor x = normal({2, 9, 3});
  Tensor changed = x.clone();
  for (int64_t batch = 0; batch < 2; ++batch) changed.data<double>()[(batch * 9 + 5) * 3] += 1;
  const Tensor before = conv.forward(x).output, after = conv.forward(changed).output;
  test::check_identical(contiguous(slice(after, 1, 0, 5)), contiguous(slice(before, 1, 0, 5)));
  CHECK(contiguous(slice(after, 1, 5, 9)).to_vector<double>() !=
        contiguous(slice(before, 1, 5, 9)).to_vector<double>());
}

TEST_CASE("a projection out of the recurrence exists where widths differ or where it is asked for", "[min_gru]") {
  Generator init(8);
  MinGru same({.channels = 4, .inner = 4}, init), forced({.channels = 4, .inner = 4, .project_out = true}, init);
  MinGru wide({.channels = 4, .inner = 6}, init), bare({.channels = 4, .inner = 6, .project_out = false}, init);
  CHECK(parameter_count(same) == 4 * 8);
  CHECK(parameter_count(forced) == 4 * 8 + 16);
  CHECK(parameter_count(wide) == 4 * 12 + 24);
  CHECK(parameter_count(bare) == 4 * 12);
  CHECK(bare.forward(Tensor::zeros({1, 2, 4})).output.shape() == Shape{1, 2, 6});
  MinLstm lstm({.channels = 4, .inner = 6, .project_out = false}, init);
  CHECK(parameter_count(lstm) == 4 * 18);
}

TEST_CASE("a residual joins the output in the last projection, or in a sum where there is none", "[min_gru][conv]") {
  Generator init(10);
  const MinGru same({.channels = 4, .inner = 4}, init), wide({.channels = 4, .inner = 6}, init);
  const MinLstm lstm({.channels = 4, .inner = 6}, init);
  const CausalSeparableConv conv(4, 3, init);
  const FeedForward feed_forward(4, 9, Bias::learned, init);
  const Tensor x = normal({2, 5, 4}, DType::f32), residual = normal({2, 5, 4}, DType::f32);
  const auto check = [&](const auto& layer) {
    const OutputAndState with = layer.forward(x, {}, residual), without = layer.forward(x);
    test::check_close_in_norm(with.output, without.output + residual, 1e-6);
    test::check_identical(with.state, without.state);
  };
  check(same);
  check(wide);
  check(lstm);
  check(conv);
  test::check_close_in_norm(feed_forward.forward(x, residual), feed_forward.forward(x) + residual, 1e-6);
}

TEST_CASE("empty batches and empty sequences pass through the recurrent layers", "[streaming]") {
  Generator init(9);
  MinGru gru({.channels = 4, .inner = 6}, init);
  CausalSeparableConv conv(4, 3, init);
  const OutputAndState no_batch = gru.forward(Tensor::zeros({0, 5, 4}));
  CHECK(no_batch.output.shape() == Shape{0, 5, 4});
  CHECK(no_batch.state.shape() == Shape{0, 6});
  const Tensor hidden = positive({2, 6}, DType::f32), tail = normal({2, 2, 4}, DType::f32);
  const OutputAndState no_time = gru.forward(Tensor::zeros({2, 0, 4}), hidden);
  CHECK(no_time.output.shape() == Shape{2, 0, 4});
  test::check_identical(contiguous(no_time.state), hidden);
  test::check_identical(contiguous(conv.forward(Tensor::zeros({2, 0, 4}), tail).state), tail);
}

}  // namespace monoid

// Layers on the GPU: outputs and gradients of input and parameters, against the CPU in f64 on the same numbers.

#include <algorithm>
#include <cmath>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/layers/causal_conv.h"
#include "monoid/layers/causal_full_attention.h"
#include "monoid/layers/embedding.h"
#include "monoid/layers/feed_forward.h"
#include "monoid/layers/gate_loop.h"
#include "monoid/layers/mamba_min_gru.h"
#include "monoid/layers/matrix_recurrent.h"
#include "monoid/layers/min_gru.h"
#include "monoid/layers/min_lstm.h"
#include "monoid/layers/norm.h"
#include "monoid/layers/simple_gate_loop.h"
#include "monoid/layers/wrapped_min_gru.h"
#include "monoid/layers/xpos_attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

using test::check_close_in_norm;
using test::cuda_or_skip;
using test::kCuda;

struct Found {
  std::vector<Tensor> outputs, gradients;  // on the CPU in f64
};

Tensor on_cpu(const Tensor& x) { return x.detach().to(kCpu).to(DType::f64); }

// A layer that `make` builds, in `dtype` on a device, from parameters and input that bf16 or f32 (`as`) can hold.
template <class Make, class Run>
Found run_layer(Make make, Run run, const Shape& shape, DType as, DType dtype, Device device) {
  Generator init(1), numbers(2);
  auto layer = make(init);
  cast_to(layer, as);
  cast_to(layer, dtype);
  move_to(layer, device);
  Tensor x = random_normal(shape, numbers).to(as).to(dtype).to(device).set_requires_grad();
  Tape tape;
  const Tensors outputs = run(layer, x);
  Tensors cotangents;
  for (const Tensor& output : outputs)
    cotangents.push_back(random_normal(output.shape(), numbers).to(as).to(dtype).to(device));
  tape.backward(outputs, cotangents);
  Found found;
  for (const Tensor& output : outputs) found.outputs.push_back(on_cpu(output));
  found.gradients.push_back(on_cpu(x.grad()));
  for (const NamedTensor& parameter : parameters(layer)) {
    if (parameter.value.grad().defined()) found.gradients.push_back(on_cpu(parameter.value.grad()));
  }
  return found;
}

// The root of the mean square of the differences, beside that of the numbers, or `least` where these are smaller.
void check_close_on_average(const Tensor& found, const Tensor& expected, double tolerance, double least) {
  const auto length = [](const Tensor& x) {
    double squares = 0;
    for (const double value : x.to_vector<double>()) squares += value * value;
    return std::sqrt(squares / static_cast<double>(x.elements()));
  };
  const double off = length(found - expected), whole = std::max(length(expected), least);
  INFO("off by " << off << " of " << whole);
  CHECK(off <= tolerance * whole);
}

using Compare = void(const Tensor& found, const Tensor& expected, double tolerance, double least);

double largest_in(const Tensors& tensors) {
  double largest = 0;
  for (const Tensor& x : tensors) {
    for (const double value : x.to_vector<double>()) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

template <class Make, class Run>
void check_layer(Make make, Run run, const std::vector<Shape>& shapes, double bf16_tolerance = 3e-2,
                 Compare* compare_bf16 = check_close_in_norm) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& shape : shapes) {
      CAPTURE(dtype, shape);
      const double tolerance = dtype == DType::f32 ? 2e-5 : bf16_tolerance;
      const Found there = run_layer(make, run, shape, dtype, dtype, kCuda);
      const Found here = run_layer(make, run, shape, dtype, DType::f64, kCpu);
      REQUIRE(there.gradients.size() == here.gradients.size());
      Compare* const compare = dtype == DType::f32 ? check_close_in_norm : compare_bf16;
      for (size_t i = 0; i < here.outputs.size(); ++i) compare(there.outputs[i], here.outputs[i], tolerance, 0);
      // Queries of one token alone have no gradient: what is left of it there is rounding.
      const double least = 1e-3 * largest_in(here.gradients);
      for (size_t i = 0; i < here.gradients.size(); ++i)
        compare(there.gradients[i], here.gradients[i], tolerance, least);
    }
  }
}

const std::vector<Shape> kSequences = {{1, 1, 24}, {2, 7, 24}, {3, 65, 24}, {1, 1000, 24}};

const auto kWholeOutput = [](const auto& layer, const Tensor& x) {
  const auto [output, state] = layer.forward(x);
  return Tensors{output, state};
};

}  // namespace

TEST_CASE("recurrent layers on CUDA agree with the CPU, forward and backward", "[cuda][layers]") {
  if (!cuda_or_skip()) return;
  const MinRnnOptions options{.channels = 24, .inner = 40, .bias = Bias::learned};
  check_layer([&](Generator& init) { return MinGru(options, init); }, kWholeOutput, kSequences);
  check_layer([&](Generator& init) { return MinLstm(options, init); }, kWholeOutput, kSequences);
}

TEST_CASE("the MinGRU stacks on CUDA agree with the CPU, forward and backward", "[cuda][layers]") {
  if (!cuda_or_skip()) return;
  const WrappedMinGruOptions options{.input_size = 24, .hidden_size = 16, .num_layers = 2, .bidirectional = true};
  // g' jumps from 1/4 to 1 at 0: where bf16 leaves one number in a hundred on the other side, gradients move by a
  // tenth.
  check_layer([&](Generator& init) { return WrappedMinGru(options, init); }, kWholeOutput, kSequences, 0.15,
              check_close_on_average);
  for (const bool causal : {false, true}) {
    const StackedMambaMinGruOptions stack{.num_layers = 1, .input_size = 24, .hidden_size = 40, .causal = causal};
    check_layer([&](Generator& init) { return MambaModule(stack, init); }, kWholeOutput, kSequences, 0.15,
                check_close_on_average);
  }
}

TEST_CASE("MRU-LM's layers on CUDA agree with the CPU, forward and backward", "[cuda][layers]") {
  if (!cuda_or_skip()) return;
  for (const auto& [heads, state_size] : {std::pair<int64_t, int64_t>{2, 18}, {3, 192}}) {  // orders 3 and 8
    const MatrixRecurrentOptions options{.channels = 24, .heads = heads, .state_size = state_size};
    const auto make = [&](Generator& init) {
      MatrixRecurrent layer(options, init);
      parameters(layer)[0].value.copy_from(random_normal({options.state_size, 24}, init, 0, 0.02));
      return layer;
    };
    check_layer(make, kWholeOutput, {{1, 1, 24}, {2, 7, 24}, {3, 65, 24}}, 8e-2);  // errors of early steps stay
  }
  const XPosAttentionOptions options{.channels = 24, .heads = 2, .key_size = 32, .value_size = 32, .deviation = 0.2};
  const auto run = [&](const XPosAttention& layer, const Tensor& x) {
    StateUpdate no_state("test", nullptr, Tensor::zeros({x.size(0), x.size(1)}, DType::i64, x.device()));
    return Tensors{layer.forward(x, xpos_rotation(options.key_channels(), 64, no_state, x), no_state, "a")};
  };
  check_layer([&](Generator& init) { return XPosAttention(options, init); }, run, kSequences);
}

TEST_CASE("GateLoop's layers on CUDA agree with the CPU, forward and backward", "[cuda][layers]") {
  if (!cuda_or_skip()) return;
  for (const bool reverse : {false, true}) {
    const SimpleGateLoopOptions options{.dim = 24, .post_ln = reverse, .reverse = reverse};
    check_layer([&](Generator& init) { return SimpleGateLoop(options, init); }, kWholeOutput, kSequences, 5e-2);
  }
  const auto run = [](const auto& layer, const Tensor& x) {
    StateUpdate no_state("test", nullptr, Tensor::zeros({x.size(0), x.size(1)}, DType::i64, x.device()));
    return Tensors{layer.forward(x, no_state, "a", x)};
  };
  const std::vector<Shape> sequences{{1, 1, 24}, {2, 7, 24}, {3, 65, 24}};
  // The direction of a z near 0, and with it a transition, is at the mercy of a rounding to bf16.
  for (const auto& [inner, heads] : {std::pair<int64_t, int64_t>{24, 24}, {32, 4}}) {
    const GateLoopedAttentionOptions options{.channels = 24, .inner = inner, .heads = heads, .sub_norm = heads < inner};
    check_layer([&](Generator& init) { return GateLoopedAttention(options, init); }, run, sequences, 0.15,
                check_close_on_average);
  }
  for (const bool softmax : {true, false}) {
    const CausalFullAttentionOptions options{
        .channels = 24, .heads = 2, .head_channels = 16, .softmax = softmax, .rotary = true};
    check_layer([&](Generator& init) { return CausalFullAttention(options, init); }, run, sequences, 5e-2);
  }
}

TEST_CASE("the other layers on CUDA agree with the CPU, forward and backward", "[cuda][layers]") {
  if (!cuda_or_skip()) return;
  const auto output = [](const auto& layer, const Tensor& x) { return Tensors{layer.forward(x)}; };
  check_layer([](Generator& init) { return Linear(24, 33, Bias::learned, init); }, output, kSequences);
  check_layer([](Generator& init) { return FeedForward(24, 70, Bias::learned, init); }, output, kSequences);
  check_layer([](Generator&) { return RmsNorm(24); }, output, kSequences);
  check_layer([](Generator&) { return LayerNorm(24); }, output, kSequences);
  check_layer([](Generator& init) { return CausalSeparableConv(24, 3, init); }, kWholeOutput, kSequences);
}

}  // namespace monoid

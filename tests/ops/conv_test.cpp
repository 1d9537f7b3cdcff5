#include "monoid/ops/conv.h"

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/gradcheck.h"

namespace monoid {
namespace {

using test::check_close;
using test::check_close_in_norm;
using test::check_identical;

Tensor normal(const Shape& shape, uint64_t seed, DType dtype = DType::f32) {
  Generator generator(seed);
  return random_normal(shape, generator, 0, 1, dtype);
}

Tensor times(const Tensor& x, int64_t begin, int64_t end) {
  return x.as_strided(x.shape().with(1, end - begin), x.strides(), x.offset() + begin * x.strides()[1]);
}

double at(const std::vector<double>& x, const Shape& shape, int64_t b, int64_t t, int64_t c) {
  return x[static_cast<size_t>((b * shape[1] + t) * shape[2] + c)];
}

// The definition, in f64: each output from the tail and the inputs up to it.
Tensor depthwise_oracle(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& tail) {
  const auto inputs = x.to_vector<double>(), w = weight.to_vector<double>();
  const auto before = tail.defined() ? tail.to_vector<double>() : std::vector<double>();
  const int64_t kernel = weight.size(1);
  Tensor y = Tensor::zeros(x.shape(), DType::f64);
  double* out = y.data<double>();
  for (int64_t b = 0; b < x.size(0); ++b) {
    for (int64_t t = 0; t < x.size(1); ++t) {
      for (int64_t c = 0; c < x.size(2); ++c, ++out) {
        *out = bias.defined() ? bias.to(DType::f64).data<double>()[c] : 0;
        for (int64_t j = 0; j < kernel; ++j) {
          const int64_t source = t - kernel + 1 + j;
          const double value = source >= 0      ? at(inputs, x.shape(), b, source, c)
                               : tail.defined() ? at(before, tail.shape(), b, source + kernel - 1, c)
                                                : 0;
          *out += w[static_cast<size_t>(c * kernel + j)] * value;
        }
      }
    }
  }
  return y;
}

Tensor dense_oracle(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t left, int64_t right) {
  const auto inputs = x.to_vector<double>(), w = weight.to_vector<double>();
  const int64_t out = weight.size(0), in = weight.size(1), kernel = weight.size(2);
  Tensor y = Tensor::zeros({x.size(0), x.size(1) + left + right - kernel + 1, out}, DType::f64);
  double* value = y.data<double>();
  for (int64_t b = 0; b < y.size(0); ++b) {
    for (int64_t t = 0; t < y.size(1); ++t) {
      for (int64_t o = 0; o < out; ++o, ++value) {
        *value = bias.to(DType::f64).data<double>()[o];
        for (int64_t j = 0; j < kernel; ++j) {
          const int64_t source = t - left + j;
          if (source < 0 || source >= x.size(1)) continue;
          for (int64_t i = 0; i < in; ++i) {
            *value += w[static_cast<size_t>((o * in + i) * kernel + j)] * at(inputs, x.shape(), b, source, i);
          }
        }
      }
    }
  }
  return y;
}

}  // namespace

TEST_CASE("convolutions have the gradients of their forwards", "[conv]") {
  for (const OpEntry& entry : conv_ops()) {
    SampleMaker make(11);
    for (const OpSample& sample : entry.samples(make)) test::check_gradients(entry.name, sample);
  }
}

TEST_CASE("depthwise convolution follows its definition for every kernel, with and without bias and tail", "[conv]") {
  const int64_t kernel = GENERATE(1, 2, 3, 4, 5, 6, 7, 8, 9, 20);
  const auto [time, channels] = GENERATE(table<int64_t, int64_t>({{1, 3}, {13, 1}, {7, 37}, {300, 2}, {3, 600}}));
  const bool optional = GENERATE(false, true);
  CAPTURE(kernel, time, channels, optional);
  const Tensor x = normal({2, time, channels}, 1), weight = normal({channels, kernel}, 2);
  const Tensor bias = optional ? normal({channels}, 3) : Tensor();
  const Tensor tail = optional ? normal({2, kernel - 1, channels}, 4) : Tensor();
  const ConvResult result = causal_depthwise_conv1d(x, weight, bias, tail);
  check_close_in_norm(result.output, depthwise_oracle(x, weight, bias, tail).to(DType::f32), 1e-6);
}

TEST_CASE("chunks that hand their tail on equal the whole sequence, bit by bit", "[conv]") {
  const int64_t kernel = GENERATE(1, 2, 4, 9), chunk = GENERATE(1, 2, 3, 7, 23);
  CAPTURE(kernel, chunk);
  const Tensor x = normal({2, 23, 19}, 1), weight = normal({19, kernel}, 2), bias = normal({19}, 3);
  const ConvResult whole = causal_depthwise_conv1d(x, weight, bias);
  Tensor tail;
  for (int64_t begin = 0; begin < 23; begin += chunk) {
    const int64_t end = std::min<int64_t>(23, begin + chunk);
    const ConvResult part = causal_depthwise_conv1d(times(x, begin, end), weight, bias, tail);
    check_identical(part.output, times(whole.output, begin, end).clone());
    tail = part.tail;
  }
  check_identical(tail, whole.tail);
  if (kernel > 1) check_identical(tail, times(x, 24 - kernel, 23).clone());
}

TEST_CASE("a tail shorter in time than the kernel mixes the old tail and the new inputs", "[conv]") {
  const Tensor x = Tensor::from<float>({7, 8}, {1, 2, 1}), weight = Tensor::ones({1, 5});
  const Tensor tail = Tensor::from<float>({1, 2, 3, 4}, {1, 4, 1});
  CHECK(causal_depthwise_conv1d(x, weight, {}, tail).tail.to_vector<float>() == std::vector<float>{3, 4, 7, 8});
  CHECK(causal_depthwise_conv1d(x, weight).tail.to_vector<float>() == std::vector<float>{0, 0, 7, 8});
  const Tensor nothing = Tensor::empty({1, 0, 1});
  check_identical(causal_depthwise_conv1d(nothing, weight, {}, tail).tail, tail);
  CHECK(causal_depthwise_conv1d(x, Tensor::ones({1, 1})).tail.shape() == Shape{1, 0, 1});
}

TEST_CASE("depthwise convolution reads strided inputs: a packed half, time first, channels apart", "[conv]") {
  const Tensor wide = normal({3, 10, 24}, 1), weight = normal({8, 4}, 2);
  for (const Strides& strides : {Strides{240, 24, 1}, Strides{24, 72, 1}, Strides{240, 24, 2}}) {
    CAPTURE(strides);
    const Tensor x = wide.as_strided({3, 10, 8}, strides, 5);
    const ConvResult viewed = causal_depthwise_conv1d(x, weight), copied = causal_depthwise_conv1d(x.clone(), weight);
    check_identical(viewed.output, copied.output);
    check_identical(viewed.tail, copied.tail);
  }
}

TEST_CASE("the depthwise weight's gradient stays exact over a million steps", "[conv]") {
  Tensor x = normal({4, 250'000, 1}, 1), weight = normal({1, 3}, 2);
  const Tensor dy = normal(x.shape(), 3);
  weight.set_requires_grad();
  Tape tape;
  tape.backward(causal_depthwise_conv1d(x, weight).output, dy);
  const float *inputs = x.data<float>(), *gradients = dy.data<float>();
  for (int64_t j = 0; j < 3; ++j) {
    double expected = 0, magnitude = 0;
    for (int64_t i = 0; i < x.elements(); ++i) {
      const int64_t t = i % 250'000;
      if (t - 2 + j < 0) continue;
      expected += double(inputs[i - 2 + j]) * gradients[i];
      magnitude += std::abs(double(inputs[i - 2 + j]) * gradients[i]);
    }
    CAPTURE(j, expected);
    CHECK(std::abs(weight.grad().data<float>()[j] - expected) <= 1e-8 * magnitude);
  }
}

TEST_CASE("convolutions and their gradients have the same bits on 1 and on 4 threads", "[conv]") {
  const int before = threads();
  const auto run = [](int count, bool dense) {
    set_threads(count);
    Tensor x = normal({2, 400, 70}, 1), bias = normal({70}, 3),
           weight = normal(dense ? Shape{70, 70, 3} : Shape{70, 3}, 2);
    for (Tensor* leaf : {&x, &weight, &bias}) leaf->set_requires_grad();
    Tape tape;
    const Tensor y = dense ? conv1d(x, weight, bias, 2, 0) : causal_depthwise_conv1d(x, weight, bias).output;
    tape.backward(y, normal(y.shape(), 4));
    return Tensors{y.detach(), x.grad(), weight.grad(), bias.grad()};
  };
  for (const bool dense : {false, true}) {
    const Tensors one = run(1, dense), four = run(4, dense);
    for (size_t i = 0; i < one.size(); ++i) check_identical(four[i], one[i]);
  }
  set_threads(before);
}

TEST_CASE("dense convolution follows its definition with any padding on either side", "[conv]") {
  const auto [kernel, left, right] = GENERATE(
      table<int64_t, int64_t, int64_t>({{1, 0, 0}, {3, 1, 1}, {3, 2, 0}, {3, 0, 2}, {4, 3, 1}, {2, 5, 0}, {9, 4, 4}}));
  CAPTURE(kernel, left, right);
  const Tensor x = normal({3, 12, 20}, 1), weight = normal({10, 20, kernel}, 2), bias = normal({10}, 3);
  check_close_in_norm(conv1d(x, weight, bias, left, right), dense_oracle(x, weight, bias, left, right).to(DType::f32),
                      1e-6);
  const Tensor flipped = x.as_strided({3, 12, 20}, {20, 60, 1}, 0);
  check_close_in_norm(conv1d(flipped, weight, bias, left, right), conv1d(flipped.clone(), weight, bias, left, right),
                      1e-6);
}

TEST_CASE("a misuse of a convolution is an error that says what was wanted", "[conv]") {
  const Tensor x = Tensor::ones({2, 5, 3});
  CHECK_THROWS_WITH(causal_depthwise_conv1d(x, Tensor::ones({4, 2})),
                    ContainsSubstring("causal_depthwise_conv1d: weight is f32[4, 2], wanted [3, kernel]"));
  CHECK_THROWS_WITH(causal_depthwise_conv1d(x, Tensor::ones({3, 0})), ContainsSubstring("at least 1"));
  CHECK_THROWS_WITH(causal_depthwise_conv1d(Tensor::ones({5, 3}), Tensor::ones({3, 2})),
                    ContainsSubstring("input is f32[5, 3], wanted [batch, time, channel]"));
  CHECK_THROWS_WITH(causal_depthwise_conv1d(x, Tensor::ones({3, 4}), Tensor::ones({4})),
                    ContainsSubstring("bias is f32[4], wanted shape [3]"));
  CHECK_THROWS_WITH(causal_depthwise_conv1d(x, Tensor::ones({3, 4}), {}, Tensor::ones({2, 2, 3})),
                    ContainsSubstring("tail is f32[2, 2, 3], wanted shape [2, 3, 3]"));
  CHECK_THROWS_WITH(causal_depthwise_conv1d(x.to(DType::bf16), Tensor::ones({3, 4}, DType::bf16)),
                    ContainsSubstring("cast()"));
  CHECK_THROWS_WITH(conv1d(x, Tensor::ones({4, 3}), {}, 0, 0), ContainsSubstring("wanted [out, 3, kernel]"));
  CHECK_THROWS_WITH(conv1d(x, Tensor::ones({4, 3, 9}), {}, 1, 1), ContainsSubstring("shorter than the kernel of 9"));
  CHECK_THROWS_WITH(conv1d(x, Tensor::ones({4, 3, 2}), {}, -1, 1), ContainsSubstring("padding (-1, 1) is negative"));
  CHECK_THROWS_WITH(conv1d(x, Tensor::ones({4, 3, 2}, DType::f64), {}, 0, 0), ContainsSubstring("two dtypes"));
}

}  // namespace monoid

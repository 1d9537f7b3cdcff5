#include <limits>

#include "monoid/core/stream.h"
#include "monoid/kernels/cross_entropy.h"
#include "monoid/ops/conv.h"
#include "monoid/ops/cross_entropy.h"
#include "monoid/ops/norm.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda_parity.h"

namespace monoid::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor classes_below(const Shape& shape, int64_t bound) {
  Generator generator(5);
  return random_integers(shape, generator, bound);
}

DeviceOp with(const CrossEntropyOptions& options) {
  return [=](const Tensors& in) -> Tensors { return {cross_entropy(in[0], in[1], options)}; };
}

double tolerance_of(DType dtype) { return dtype == DType::bf16 ? 8e-3 : 2e-6; }

}  // namespace

TEST_CASE("CUDA cross-entropy agrees with the CPU for every vocabulary size and option", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const int64_t classes = GENERATE(1, 2, 3, 64, 65, 255, 256, 1000, 2048, 2049, 4096, 8192, 8193, 50257, 50304, 128256);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const int64_t rows = classes > 4096 ? 5 : 75;
  const Tensors values{normal({rows, classes}, 1, 3), classes_below({rows}, classes)};
  for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
    for (const double smoothing : {0., 0.1}) {
      CAPTURE(classes, name(dtype), static_cast<int>(reduction), smoothing);
      // With one class the gradient is 0, up to the rounding of its terms.
      const bool ignores = classes > 1;
      const CrossEntropyOptions options{
          .ignore_index = ignores ? 1 : -100, .reduction = reduction, .label_smoothing = smoothing};
      if (classes > 1) check_parity(with(options), values, dtype, tolerance_of(dtype));
      const Tensors one = outputs_and_gradients(with(options), on_cuda(values, dtype));
      CHECK(one[0].dtype() == DType::f32);
      CHECK(one[1].dtype() == dtype);
    }
  }
}

TEST_CASE("CUDA cross-entropy takes strided logits, i32 targets and rows at odd addresses", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t classes : {29, 32, 9001, 9008}) {
    CAPTURE(classes);
    const auto sliced = [=](const Tensors& in) -> Tensors {
      return {cross_entropy(slice(in[0], -1, 12, 12 + classes), in[1])};
    };
    const auto across = [=](const Tensors& in) -> Tensors { return {cross_entropy(transpose(in[0], 0, 1), in[1])}; };
    const Tensor targets = classes_below({3, 4}, classes).to(DType::i32);
    check_parity(sliced, {normal({3, 4, classes + 24}, 1), targets}, dtype, tolerance_of(dtype));
    check_parity(across, {normal({4, 3, classes}, 1), targets}, dtype, tolerance_of(dtype));
  }
}

TEST_CASE("CUDA cross-entropy writes its outputs and nothing beside them", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const int64_t classes = GENERATE(1, 65, 1024, 9001, 70001), skipped = GENERATE(0, 1, 5);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const Tensors in = on_cuda({normal({11, classes}, 1), classes_below({11}, classes)}, dtype);
  Guarded losses({11}), statistics({11, 2}), counted({}, DType::i64), dlogits({11, classes}, dtype, skipped);
  kernels::cross_entropy_count(in[1], -1, counted.tensor());
  CHECK(counted.tensor().item() == 11);
  kernels::cross_entropy(in[0], in[1], counted.tensor(), -1, 0.1, losses.tensor(), statistics.tensor(),
                         dlogits.tensor());
  const Tensor first = dlogits.tensor().clone();
  for (Guarded* output : {&losses, &statistics, &dlogits}) output->check_intact();
  kernels::cross_entropy_gradient(in[0], in[1], statistics.tensor(), Tensor::full({11}, 1 / 11., DType::f32, kCuda), -1,
                                  0.1, dlogits.tensor());
  dlogits.check_intact();
  check_close_in_norm(dlogits.tensor(), first, dtype == DType::bf16 ? 8e-3 : 1e-6);
  kernels::cross_entropy_rescale(Tensor::full({}, -2, DType::f32, kCuda), dlogits.tensor());
  dlogits.check_intact();
  check_close_in_norm(dlogits.tensor().to(kCpu).to(DType::f32),
                      Tensor::from(
                          [&] {
                            auto values = first.to_vector<float>();
                            for (float& value : values) value *= -2;
                            return values;
                          }(),
                          {11, classes}),
                      dtype == DType::bf16 ? 8e-3 : 1e-6);
}

TEST_CASE("CUDA cross-entropy gives the same bits on every run", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t classes : {65, 1024, 50257}) {
    const Tensors values = on_cuda({normal({100, classes}, 1), classes_below({100}, classes)}, dtype);
    for (const Reduction reduction : {Reduction::mean, Reduction::none})
      check_repeats([&] { return outputs_and_gradients(with({.reduction = reduction}), values); });
  }
}

TEST_CASE("CUDA cross-entropy keeps its digits under an offset of 1e4 and a spread of 1e4", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const DeviceOp plain = with({.reduction = Reduction::none}), smooth = with({.label_smoothing = 0.3});
  for (const int64_t classes : {300, 20000}) {
    const Tensor targets = classes_below({6}, classes);
    for (const double offset : {1e4, -1e4}) {
      check_parity(plain, {normal({6, classes}, 1, 1, offset), targets}, DType::f32, 2e-6);
      check_parity(smooth, {normal({6, classes}, 1, 1, offset), targets}, DType::f32, 2e-6);
    }
    check_parity(plain, {normal({6, classes}, 1, 1e4), targets}, DType::f32, 2e-6);
    check_parity(plain, {Tensor::full({6, classes}, 1e4, DType::f64), targets}, DType::f32, 2e-6);
  }
}

TEST_CASE("CUDA cross-entropy: infinite, NaN and ignored logits as on the CPU", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor logits = Tensor::from<double>(
      {kInfinity, 3, -kInfinity, kInfinity,  3,          -kInfinity, 0,         0,          -kInfinity,
       0,         0, -kInfinity, -kInfinity, -kInfinity, -kInfinity, kInfinity, kInfinity,  0,
       nan,       0, 0,          nan,        kInfinity,  0,          nan,       -kInfinity, 0},
      {9, 3});
  const Tensor targets = Tensor::from<int64_t>({0, 1, 0, 2, 1, 1, 1, 1, -100}, {9});
  // The same rows with 20000 more classes of -infinity go through the kernel for long rows.
  for (const int64_t more : {0, 20000}) {
    Tensor wide = Tensor::full({9, 3 + more}, -kInfinity, DType::f64);
    wide.as_strided({9, 3}, wide.strides(), 0).copy_from(logits);
    for (const Reduction reduction : {Reduction::none, Reduction::sum, Reduction::mean}) {
      CAPTURE(more, static_cast<int>(reduction));
      const auto ones = [&](const Tensor& values, Device device) {
        const Tensor leaf = values.to(device).set_requires_grad();
        Tape tape;
        const Tensor loss = cross_entropy(leaf, targets.to(device), {.reduction = reduction});
        tape.backward(loss, Tensor::ones(loss.shape(), loss.dtype(), device));
        return Tensors{loss.to(kCpu).to(DType::f64), leaf.grad().to(kCpu).to(DType::f64)};
      };
      const Tensors expected = ones(wide, kCpu), actual = ones(wide.to(dtype), kCuda);
      check_close(actual[0], expected[0], 1e-6, 1e-7);
      check_close(actual[1], expected[1], tolerance_of(dtype), 1e-7);
    }
  }
}

TEST_CASE("CUDA cross-entropy: a mean over ignored rows alone, no rows, many rows", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  check_parity(with({}), {normal({4, 3}, 1), Tensor::full({4}, -100, DType::i64)}, DType::f32, 0);
  check_parity(with({}), {normal({0, 3}, 1), Tensor::empty({0}, DType::i64)}, DType::f32, 0);
  check_parity(with({}), {normal({0, 9000}, 1), Tensor::empty({0}, DType::i64)}, DType::f32, 0);
  check_parity(with({.ignore_index = 2}), {normal({300001, 3}, 1), classes_below({300001}, 3)}, DType::f32, 2e-6);
}

TEST_CASE("convolution, norms and cross-entropy give in a graph what they give without", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const int64_t channels = GENERATE(40, 9000);
  const Tensors in = on_cuda(
      {normal({2, 30, channels}, 1), normal({channels, 4}, 2), normal({channels}, 3), classes_below({2, 30}, channels)},
      dtype);
  const auto step = [&]() -> Tensors {
    const Tensors leaves{in[0].detach().set_requires_grad(), in[1].detach().set_requires_grad(),
                         in[2].detach().set_requires_grad()};
    Tape tape;
    const Tensor x = causal_depthwise_conv1d(leaves[0], leaves[1]).output;
    const NormAndSum stream = add_rms_norm(x, leaves[0], leaves[2]);
    const Tensor loss = cross_entropy(add_layer_norm(stream.sum, stream.normed, leaves[2]).normed, in[3]);
    tape.backward(loss);
    return {loss.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
  };
  const Tensors eager = step();
  Tensors replayed;
  const Graph graph(kCuda, [&] { replayed = step(); });
  for (int run = 0; run < 3; ++run) {
    graph.replay();
    for (size_t i = 0; i < eager.size(); ++i) check_identical(replayed[i].to(kCpu), eager[i].to(kCpu));
  }
}

TEST_CASE("CUDA cross-entropy reports a target outside the classes", "[cuda][cross_entropy]") {
  if (!cuda_or_skip()) return;
  for (const int64_t classes : {4, 20000}) {
    for (const int64_t wrong : {classes, int64_t{-1}, int64_t{1} << 40}) {
      const Tensor targets = Tensor::from<int64_t>({0, wrong, 2}, {3}).to(kCuda);
      const Tensor loss = cross_entropy(Tensor::zeros({3, classes}, DType::f32, kCuda), targets);
      CHECK_THROWS_WITH(loss.item(), ContainsSubstring(str("target ", wrong)) && ContainsSubstring("row 1"));
      CHECK_NOTHROW(loss.item());
    }
  }
}

}  // namespace monoid::test

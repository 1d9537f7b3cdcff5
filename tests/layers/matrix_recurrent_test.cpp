#include "monoid/layers/matrix_recurrent.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/matrix_scan.h"
#include "monoid/tests/layers/layer_support.h"

namespace monoid {
namespace {

Tensor normal(const Shape& shape, DType dtype = DType::f64, double deviation = 1) {
  static Generator generator(7);
  return random_normal(shape, generator, 0, deviation, dtype);
}

// Orders 1 to 4; more state than channels, and less.
const std::vector<MatrixRecurrentOptions> kVariants{{.channels = 12, .heads = 2, .state_size = 18},
                                                    {.channels = 4, .heads = 1, .state_size = 16},
                                                    {.channels = 8, .heads = 2, .state_size = 8},
                                                    {.channels = 3, .heads = 3, .state_size = 3}};

// With matrices that are not all the identity, as they are at the start.
MatrixRecurrent trained(const MatrixRecurrentOptions& options, DType dtype) {
  Generator init(1);
  MatrixRecurrent layer(options, init);
  cast_to(layer, dtype);
  parameters(layer)[0].value.copy_from(normal({options.state_size, options.channels}, dtype, 0.1));
  return layer;
}

Tensor state_of(const MatrixRecurrent& layer, int64_t batch, DType dtype) {
  return normal(layer.state_shape(batch), dtype);
}

}  // namespace

TEST_CASE("MatrixRecurrent passes the gradient check by input, state and parameters", "[matrix_recurrent][gradient]") {
  for (const MatrixRecurrentOptions& options : kVariants) {
    // Few steps multiply the states one by one, many have one weight for both projections.
    for (const int64_t time : {3, 12}) {
      CAPTURE(options.channels, options.state_size, time);
      MatrixRecurrent layer = trained(options, DType::f64);
      const auto run = [&](const Tensors& in) -> Tensors {
        const auto [output, state] = layer.forward(in[0], in.size() > 1 && in[1].rank() == 4 ? in[1] : Tensor());
        return {output, state};
      };
      const Tensor x = normal({2, time, options.channels});
      test::check_layer_gradients("MatrixRecurrent, fresh", layer, {x}, run);
      test::check_layer_gradients("MatrixRecurrent, with state", layer, {x, state_of(layer, 2, DType::f64)}, run);
    }
  }
}

TEST_CASE("MatrixRecurrent: one call, chunks and single steps are the same", "[matrix_recurrent][streaming]") {
  for (const MatrixRecurrentOptions& options : kVariants) {
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-12}, {DType::f32, 1e-5}}) {
      const MatrixRecurrent layer = trained(options, dtype);
      const auto forward = [&](const Tensor& x, const Tensor& state) { return layer.forward(x, state); };
      test::check_all_forms_agree(forward, options.channels, state_of(layer, 3, dtype), tolerance);
    }
  }
}

TEST_CASE("MatrixRecurrent computes what its formula says", "[matrix_recurrent]") {
  for (const MatrixRecurrentOptions& options : kVariants) {
    MatrixRecurrent layer = trained(options, DType::f64);
    const std::vector<NamedTensor> named = parameters(layer);
    const int64_t heads = options.heads, order = options.order(), chunk = options.chunk(), time = 40;
    CHECK(named[1].value.shape() == Shape{heads, order, chunk});
    const Tensor x = normal({2, time, options.channels}), initial = state_of(layer, 2, DType::f64);
    const Tensor m = reshape(linear(x, named[0].value), {2, time, heads, order, order});
    const Tensor matrices = ldu_matrix(m);
    Tensor h = initial;
    for (int64_t t = 0; t < time; ++t) {
      h = matmul(h, select(matrices, 1, t));
      const Tensor y = reshape(matmul(h, named[1].value), {2, options.channels});
      const auto [output, state] = layer.forward(slice(x, 1, 0, t + 1), initial);
      test::check_close_in_norm(select(output, 1, t), linear(y, named[2].value), 1e-12);
      test::check_close_in_norm(state, h, 1e-12);
    }
  }
}

TEST_CASE("MatrixRecurrent starts with every state at the identity, and its count is the closed form",
          "[matrix_recurrent]") {
  for (const MatrixRecurrentOptions& options : kVariants) {
    Generator init(1);
    MatrixRecurrent layer(options, init);
    CHECK(parameter_count(layer) == options.parameters());
    const Tensor state = layer.forward(normal({2, 9, options.channels}, DType::f32)).state;
    const int64_t order = options.order();
    for (int64_t i = 0; i < order; ++i) {
      for (int64_t j = 0; j < order; ++j)
        CHECK(select(select(select(select(state, 0, 1), 0, 0), 0, i), 0, j).item() == (i == j));
    }
  }
}

TEST_CASE("MatrixRecurrent adds a residual, and loses what its generator says", "[matrix_recurrent]") {
  MatrixRecurrentOptions options = kVariants.front();
  options.dropout = 0.5;
  const MatrixRecurrent layer = trained(options, DType::f64);
  const Tensor x = normal({2, 20, 12}), residual = normal({2, 20, 12});
  const Tensor plain = layer.forward(x).output;
  test::check_close_in_norm(layer.forward(x, {}, residual).output, plain + residual, 1e-13);
  Generator first(3), again(3);
  const Tensor dropped = layer.forward(x, {}, {}, &first).output;
  test::check_close_in_norm(layer.forward(x, {}, residual, &again).output, dropped + residual, 1e-13);
  int64_t zeros = 0;
  for (const double value : dropped.to_vector<double>()) zeros += value == 0;
  CHECK(zeros > 480 * 0.4);
  CHECK(zeros < 480 * 0.6);
}

TEST_CASE("MatrixRecurrent takes batches without rows, and rows without steps", "[matrix_recurrent]") {
  const MatrixRecurrent layer = trained(kVariants.front(), DType::f32);
  CHECK(layer.forward(normal({0, 5, 12}, DType::f32)).output.shape() == Shape{0, 5, 12});
  const Tensor state = state_of(layer, 2, DType::f32);
  const auto [output, same] = layer.forward(normal({2, 0, 12}, DType::f32), state);
  CHECK(output.shape() == Shape{2, 0, 12});
  test::check_identical(same, state);
}

TEST_CASE("MatrixRecurrent refuses sizes that make no square matrices", "[matrix_recurrent]") {
  Generator init(1);
  CHECK_THROWS_WITH(MatrixRecurrent({.channels = 12, .heads = 2, .state_size = 10}, init),
                    ContainsSubstring("a state of 10 in 2 heads makes no square matrices"));
  CHECK_THROWS_WITH(MatrixRecurrent({.channels = 10, .heads = 2, .state_size = 18}, init),
                    ContainsSubstring("10 channels cannot be dealt to the 6 rows"));
  CHECK_THROWS_WITH(MatrixRecurrent({.channels = 12, .heads = 0, .state_size = 18}, init),
                    ContainsSubstring("heads is 0"));
}

}  // namespace monoid

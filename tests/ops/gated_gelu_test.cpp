#include "monoid/ops/gated_gelu.h"

#include "monoid/core/random.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {

TEST_CASE("gated_gelu is values times GELU of gates, and its gradient theirs", "[gated_gelu]") {
  Generator generator(1);
  for (const Shape& shape : {Shape{3, 2}, Shape{5, 70}, Shape{2, 3, 1366}, Shape{400, 48}}) {
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-14}, {DType::f32, 1e-6}}) {
      CAPTURE(shape, dtype == DType::f64);
      const Tensor x = random_normal(shape, generator, 0, 2, DType::f64).to(dtype);
      const Tensor cotangent = random_normal(shape.with(-1, shape.back() / 2), generator, 0, 1, DType::f64).to(dtype);
      const auto run = [&](auto op) {
        const Tensor in = x.clone().set_requires_grad();
        Tape tape;
        const Tensor y = op(in);
        tape.backward(y, cotangent);
        return Tensors{y.detach(), in.grad()};
      };
      const Tensors fused = run(gated_gelu), composed = run([](const Tensor&in) {
                                               const int64_t channels = in.size(-1) / 2;
                                               const Tensors halves = split(in, -1, {channels, channels});
                                               return halves[0] * gelu(halves[1]);
                                             });
      for (size_t i = 0; i < 2; ++i) test::check_close_in_norm(fused[i], composed[i], tolerance);
    }
  }
}

TEST_CASE("gated_gelu refuses what is no pair of values and gates", "[gated_gelu]") {
  CHECK_THROWS_WITH(gated_gelu(Tensor::ones({2, 3})), ContainsSubstring("gated_gelu: x is f32[2, 3], wanted"));
  CHECK_THROWS_WITH(gated_gelu(Tensor::ones({2}, DType::i32)), ContainsSubstring("wanted floating-point numbers"));
}

}  // namespace monoid

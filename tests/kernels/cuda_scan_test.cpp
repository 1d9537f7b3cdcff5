#include <cstring>

#include "monoid/tests/kernels/cuda_scan_support.h"

using namespace monoid;
using namespace monoid::test;

namespace {

void check_shapes(const std::vector<Shape>& shapes) {
  Generator generator(1);
  for (const Kind kind : kKinds) {
    for (const Shape& shape : shapes) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Direction direction = is_gated(kind) || dtype == DType::bf16 ? Direction::forward : Direction::reverse;
        CAPTURE(name_of(kind), shape, dtype);
        check_scan(kind, draw(kind, shape, generator, dtype == DType::f32), direction, dtype);
      }
    }
  }
}

}  // namespace

TEST_CASE("CUDA scans and their gradients follow the CPU's, small", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  check_shapes({{1, 1, 1}, {2, 2, 3}, {3, 63, 33}, {2, 65, 31}, {1, 127, 2}, {1, 700, 33}});
}

TEST_CASE("CUDA scans and their gradients follow the CPU's at every size", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  // The state relayed inside a block, folded there, and spread over blocks; and one row, one step, one channel of each.
  check_shapes({{64, 1, 1000},
                {1000, 127, 3},
                {300, 9, 300},
                {26, 70, 500},
                {120, 70, 128},
                {3, 64, 1000},
                {5, 1000, 31},
                {1, 500, 1000},
                {2, 4097, 33},
                {1, 4097, 1},
                {1, 65536, 3},
                {40, 2, 4100}});
}

TEST_CASE("CUDA scans of both directions, with any cotangent left out", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(2);
  for (const Kind kind : kKinds) {
    for (const Shape& shape : {Shape{2, 65, 6}, Shape{1, 1500, 5}}) {
      for (const int absent : {1, 2, 3}) {
        Operands operands = draw(kind, shape, generator, absent != 2);
        if (absent & 1) operands.cotangent = {};
        if (absent & 2) operands.final_cotangent = {};
        CAPTURE(name_of(kind), shape, absent);
        check_scan(kind, operands, Direction::forward, DType::f32);
        if (!is_gated(kind)) check_scan(kind, operands, Direction::reverse, DType::bf16);
      }
    }
  }
}

TEST_CASE("CUDA scans of nothing write the state that enters", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  Generator generator(3);
  for (const Kind kind : kKinds) {
    for (const Shape& shape : {Shape{0, 4, 3}, Shape{2, 4, 0}, Shape{2, 0, 3}}) {
      CAPTURE(name_of(kind), shape);
      for (const bool with_state : {true, false})
        check_scan(kind, draw(kind, shape, generator, with_state), Direction::forward, DType::f32);
    }
  }
}

TEST_CASE("CUDA scans read strided rows in place, aligned or not", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  Generator generator(4);
  // Channels of a wider row, from an even or an odd one on; a broadcast state.
  for (const Kind kind : kKinds) {
    for (const int64_t offset : {4, 5}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Operands stored = draw(kind, {3, 70, 34}, generator).as(dtype), here = stored.on(kCuda);
        const auto inside = [&](const Tensor& x) {
          const Shape shape = x.shape();
          const Shape wide = shape.with(2, shape[2] + 9);
          const Tensor buffer = Tensor::zeros(wide, dtype);
          const Tensor view = buffer.as_strided(shape, buffer.strides(), offset);
          Tensor(view).copy_from(x);
          const Tensor device = buffer.to(kCuda);
          return device.as_strided(shape, device.strides(), offset);
        };
        Operands viewed = here;
        for (size_t i = 0; i < stored.in.size(); ++i) viewed.in[i] = inside(stored.in[i]);
        viewed.cotangent = inside(stored.cotangent);
        CAPTURE(name_of(kind), offset, dtype);
        const double tolerance = dtype == DType::bf16 ? 0x1p-8 : 2e-6;  // both sides are rounded
        const Tensors dense = forward(kind, here), strided = forward(kind, viewed, Direction::forward, offset % 2);
        for (size_t i = 0; i < dense.size(); ++i) check_near(strided[i], on_cpu(dense[i]), tolerance);
        const Tensors gradients = backward(kind, here, dense[0]),
                      others = backward(kind, viewed, dense[0], Direction::forward, offset % 2);
        for (size_t i = 0; i < gradients.size(); ++i) check_near(others[i], on_cpu(gradients[i]), tolerance);
      }
    }
  }
}

TEST_CASE("CUDA scans give the same bits every time", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(5);
  for (const Kind kind : kKinds) {
    for (const Shape& shape : {Shape{1, 9000, 70}, Shape{4, 300, 200}}) {
      const Operands here = draw(kind, shape, generator).on(kCuda);
      CAPTURE(name_of(kind), shape);
      check_repeats([&] {
        Tensors results = forward(kind, here);
        for (const Tensor& gradient : backward(kind, here, results[0])) results.push_back(gradient);
        return results;
      });
    }
  }
}

TEST_CASE("However CUDA scans share their time, they agree", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  // Enough equal rows relay their state, fewer fold it inside a block, a single one is spread over blocks.
  Generator generator(6);
  constexpr int64_t kTime = 1100, kChannel = 32;
  for (const Kind kind : kKinds) {
    const Operands one = draw(kind, {1, kTime, kChannel}, generator).on(kCuda);
    const auto of = [&](int64_t batch) {
      const auto repeat = [&](const Tensor& x) {
        return x.as_strided(x.shape().with(0, batch), x.strides().with(0, 0), x.offset());
      };
      const Operands rows = one.each(repeat);
      Tensors results = forward(kind, rows);
      for (const Tensor& gradient : backward(kind, rows, results[0])) results.push_back(gradient);
      for (Tensor& x : results)
        x = on_cpu(x.as_strided(x.shape().with(0, 1), x.strides(), x.offset() + (batch - 1) * x.strides()[0]));
      return results;
    };
    const Tensors across = of(1), inside = of(60), whole = of(400);
    CAPTURE(name_of(kind));
    for (size_t i = 0; i < whole.size(); ++i) {
      check_near(across[i], whole[i], 5e-6);
      check_near(inside[i], whole[i], 5e-6);
    }
  }
}

TEST_CASE("Steps one at a time give the bits of gated CUDA scans of many channels", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(7);
  constexpr int64_t kTime = 70;
  for (const Kind kind : {Kind::min_gru, Kind::min_lstm}) {
    const Operands here = draw(kind, {420, kTime, 32}, generator).on(kCuda);
    const Tensors whole = forward(kind, here);
    Operands step = here;
    for (int64_t t = 0; t < kTime; ++t) {
      for (size_t i = 0; i < here.in.size(); ++i) {
        const Tensor& x = here.in[i];
        step.in[i] = x.as_strided(x.shape().with(1, 1), x.strides(), x.offset() + t * x.strides()[1]);
      }
      step.initial = forward(kind, step)[1];
    }
    CAPTURE(name_of(kind));
    check_identical(step.initial.to(kCpu), whole[1].to(kCpu));
  }
}

TEST_CASE("minGRU on CUDA stays accurate over 65536 steps for every kind of gate", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  constexpr int64_t kTime = 65536;
  struct Gates {
    double mean, deviation;
  };
  for (const Gates& gates : {Gates{0, 1}, Gates{6, 1}, Gates{0, 50}, Gates{-6, 1}, Gates{-12, 0}}) {
    Generator generator(8);
    Operands operands = draw(Kind::min_gru, {1, kTime, 2}, generator);
    float* packed = operands.in[0].data<float>();
    for (int64_t t = 0; t < kTime; ++t)
      for (int64_t c = 2; c < 4; ++c)
        packed[t * 4 + c] = static_cast<float>(gates.mean + gates.deviation / 2 * packed[t * 4 + c]);
    CAPTURE(gates.mean, gates.deviation);
    const Tensors states = forward(Kind::min_gru, operands.on(kCuda)),
                  exact = forward(Kind::min_gru, operands.as(DType::f64));
    check_close(on_cpu(states[0]), exact[0].to(DType::f32), 1.2e-5, 1e-36);
    check_scan(Kind::min_gru, operands, Direction::forward, DType::f32, 0, 1.2e-5);
  }
}

TEST_CASE("CUDA gates at their limits, and numbers that stay in their channel", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  const auto packed = [](double x, double k) {
    Tensor result = Tensor::full({1, 3, 4}, x);
    for (int64_t t = 0; t < 3; ++t)
      for (int64_t c = 2; c < 4; ++c) result.data<float>()[t * 4 + c] = static_cast<float>(k);
    return result.to(kCuda);
  };
  const Tensor seven = Tensor::full({1, 2}, 7).to(kCuda);
  const auto min_gru = [&](const Tensor& x) { return forward(Kind::min_gru, {{x}, seven, {}, {}})[1].to(kCpu); };
  for (const double k : {100.0, 1e4, kInf}) {
    check_identical(min_gru(packed(2, k)), Tensor::full({1, 2}, 2.5));
    check_identical(min_gru(packed(2, -k)), Tensor::full({1, 2}, 7));
    check_identical(min_gru(packed(0.0, k)), Tensor::full({1, 2}, 0.5));
    check_identical(min_gru(packed(-0.0, k)), Tensor::full({1, 2}, 0.5));
    check_identical(min_gru(packed(-kInf, k)), Tensor::full({1, 2}, 0));
  }
  Generator generator(9);
  for (const Kind kind : kKinds) {
    for (const int64_t time : {20, 1500}) {
      Operands operands = draw(kind, {1, time, 3}, generator);
      const Tensor clean = on_cpu(forward(kind, operands.on(kCuda))[0]);
      operands.in[0].data<float>()[(time / 2) * operands.in[0].strides()[1] + 1] = NAN;
      const Tensor touched = on_cpu(forward(kind, operands.on(kCuda))[0]);
      int64_t wrong = 0;
      for (int64_t i = 0; i < clean.elements(); ++i) {
        const float a = clean.data<float>()[i], b = touched.data<float>()[i];
        const bool hit = i % 3 == 1 && i / 3 >= time / 2;
        wrong += hit ? !std::isnan(b) : std::memcmp(&a, &b, sizeof(a)) != 0;
      }
      CAPTURE(name_of(kind), time);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("A scan without a state on CUDA ignores its first gate", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  for (const int64_t time : {3, 300, 3000}) {
    Tensor a = Tensor::full({1, time, 1}, 0.5), b = Tensor::ones({1, time, 1});
    a.data<float>()[0] = NAN;
    for (const Kind kind : {Kind::linear, Kind::log}) {
      const Operands x{{a, b}, {}, {}, {}};
      check_near(forward(kind, x.on(kCuda))[0], forward(kind, x)[0], 5e-6);
    }
  }
}

TEST_CASE("A negative state in a gated CUDA scan is an error, where the host next waits", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(10);
  for (const Shape& shape : {Shape{2, 3, 4}, Shape{1, 3000, 4}, Shape{2, 0, 4}}) {
    Operands operands = draw(Kind::min_gru, shape, generator);
    operands.initial.data<float>()[3] = -0.25f;
    const Operands here = operands.on(kCuda);
    Tensor states = Tensor::empty(shape, DType::f32, kCuda), final = Tensor::empty({shape[0], 4}, DType::f32, kCuda);
    kernels::min_gru_scan(here.in[0], here.initial, states, final);
    CHECK_THROWS_WITH(synchronize(kCuda), ContainsSubstring("must not be negative, got -0.25 at element 3"));
    kernels::min_gru_scan(here.in[0], {}, states, final);
    CHECK_NOTHROW(synchronize(kCuda));
  }
}

#include "monoid/ops/gate_loop.h"

#include "monoid/tests/ops/gate_loop_support.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

using namespace monoid;
using namespace monoid::test;

namespace {

struct Case {
  int64_t batch, time, heads, size;
};

// A channel a head, then heads of several; odd and prime extents, cut time (one narrow row), around the stretch of 64.
const std::vector<Case> kCases = {{2, 1, 3, 1},      {1, 2, 33, 1},   {3, 63, 1, 1},  {2, 65, 31, 1},
                                  {1, 127, 1000, 1}, {1, 1500, 5, 1}, {2, 1, 2, 3},   {1, 63, 3, 2},
                                  {2, 64, 1, 5},     {1, 65, 2, 16},  {2, 130, 2, 7}, {1, 200, 1, 33}};

const auto scan = [](const Tensors& in) { return gate_loop_scan(in[0], in[1], {}, in[2]); };

Tensor part_of_time(const Tensor& x, int64_t begin, int64_t end) {
  return x.as_strided(x.shape().with(1, end - begin), x.strides(), x.offset() + begin * x.strides()[1]);
}

Tensor constant_z(int64_t time, double re, double im, DType dtype = DType::f32) {
  std::vector<double> values;
  for (int64_t t = 0; t < time; ++t) values.push_back(re), values.push_back(im);
  return Tensor::from(values, {1, time, 1, 2}).to(dtype);
}

}  // namespace

TEST_CASE("gate_loop_scan is the recurrence of states and its read-out, for every transition and size") {
  Generator generator(1);
  for (const auto& [batch, time, heads, size] : kCases) {
    for (const Transition kind : {Transition::complex, Transition::real, Transition::one}) {
      for (const bool with_state : {false, true}) {
        CAPTURE(batch, time, heads, size, static_cast<int>(kind), with_state);
        const Tensor qkv = random_normal({batch, time, 3 * heads * size}, generator),
                     z = random_normal({batch, time, heads, 2}, generator, 0, 2),
                     initial = with_state ? random_normal({batch, heads, size, size, 2}, generator) : Tensor();
        const GateLoopResult result = gate_loop_scan(qkv, z, {kind}, initial);
        const Tensors expected = gate_loop_oracle(qkv, z, kind, initial);
        check_close_in_norm(result.output, expected[0].to(DType::f32), 2e-6);
        check_close_in_norm(result.final, expected[1].to(DType::f32), 2e-6);
      }
    }
  }
}

TEST_CASE("gate_loop_scan in pieces and step by step gives the bits of the whole") {
  Generator generator(2);
  for (const int64_t size : {1, 3}) {
    const Tensor qkv = random_normal({2, 70, 12 * size}, generator), z = random_normal({2, 70, 4, 2}, generator);
    const GateLoopResult whole = gate_loop_scan(qkv, z);
    for (const int64_t piece : {1, 7, 64}) {
      Tensor state;
      for (int64_t begin = 0; begin < 70; begin += piece) {
        const int64_t end = std::min<int64_t>(70, begin + piece);
        const GateLoopResult part =
            gate_loop_scan(part_of_time(qkv, begin, end), part_of_time(z, begin, end), {}, state);
        check_identical(part.output, part_of_time(whole.output, begin, end).clone());
        state = part.final;
      }
      check_identical(state, whole.final);
    }
  }
}

TEST_CASE("gradients of a sequence in two pieces are those of the whole") {
  Generator generator(3);
  for (const int64_t size : {1, 3}) {
    const Shape state{2, 2, size, size, 2};
    const Tensor qkv = random_normal({2, 99, 6 * size}, generator, 0, 1, DType::f64),
                 z = random_normal({2, 99, 2, 2}, generator, 0, 1, DType::f64),
                 initial = random_normal(state, generator, 0, 1, DType::f64),
                 dy = random_normal({2, 99, 2 * size}, generator, 0, 1, DType::f64),
                 dfinal = random_normal(state, generator, 0, 1, DType::f64);
    const Tensors whole = read_out_gradients({qkv, z, initial}, {dy, dfinal}, scan);
    const Tensor middle = gate_loop_scan(part_of_time(qkv, 0, 37), part_of_time(z, 0, 37), {}, initial).final;
    const auto piece = [&](int64_t begin, int64_t end, const Tensor& entering, const Tensor& leaving) {
      return read_out_gradients({part_of_time(qkv, begin, end).clone(), part_of_time(z, begin, end).clone(), entering},
                                {part_of_time(dy, begin, end), leaving}, scan);
    };
    const Tensors second = piece(37, 99, middle, dfinal), first = piece(0, 37, initial, second[2]);
    for (size_t i = 0; i < 2; ++i) {
      check_close(first[i], part_of_time(whole[i], 0, 37).clone(), 1e-12, 1e-12);
      check_close(second[i], part_of_time(whole[i], 37, 99).clone(), 1e-12, 1e-12);
    }
    check_close(first[2], whole[2], 1e-12, 1e-12);
  }
}

TEST_CASE("one head of one channel is the same in both forms") {
  // Channels of a wider head that are 0 change nothing: the outer form against the channel one, gradients included.
  Generator generator(4);
  const Tensor narrow = random_normal({1, 90, 3}, generator, 0, 1, DType::f64),
               z = random_normal({1, 90, 1, 2}, generator, 0, 1, DType::f64);
  Tensor wide = Tensor::zeros({1, 90, 6}, DType::f64), dy_wide = Tensor::zeros({1, 90, 2}, DType::f64);
  wide.as_strided({1, 90, 3}, {540, 6, 2}, 0).copy_from(narrow);
  const Tensor dy = random_normal({1, 90, 1}, generator, 0, 1, DType::f64);
  dy_wide.as_strided({1, 90, 1}, {180, 2, 1}, 0).copy_from(dy);
  const Tensor y = gate_loop_scan(narrow, z).output, y_wide = gate_loop_scan(wide, z).output;
  check_close(y_wide.as_strided({1, 90, 1}, {180, 2, 1}, 0).clone(), y, 1e-13, 1e-13);
  const Tensors gradients = read_out_gradients({narrow, z, {}}, {dy, {}}, scan),
                others = read_out_gradients({wide, z, {}}, {dy_wide, {}}, scan);
  check_close(others[0].as_strided({1, 90, 3}, {540, 6, 2}, 0).clone(), gradients[0], 1e-12, 1e-12);
  check_close(others[1], gradients[1], 1e-12, 1e-12);
}

TEST_CASE("the transition at its edges: zero, the axes, and magnitudes whose squares do not exist") {
  // One step from a state of 1: the final state is a itself.
  const Tensor start = Tensor::from(std::vector<double>{1, 0}, {1, 1, 1, 1, 2});
  struct Edge {
    double re, im, a_re, a_im;
  };
  const double s2 = 1 / (1 + std::exp(-2.0)), half = std::sqrt(0.5);
  for (const Edge& edge : {Edge{0, 0, 0.5, 0}, Edge{-0.0, 0, 0.5, 0}, Edge{0, 2, 0, s2}, Edge{0, -2, 0, -s2},
                           Edge{-2, 0, -s2, 0}, Edge{-2, -0.0, -s2, 0}, Edge{1e-25, 1e-25, half / 2, half / 2},
                           Edge{-1e-25, 0, -0.5, 0}, Edge{1e20, -1e20, half, -half}, Edge{0, 1e20, 0, 1},
                           Edge{-3e38, 1e30, -1, 0}, Edge{30, 0, 1, 0}, Edge{1e20, 1e-20, 1, 0}}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      CAPTURE(edge.re, edge.im, dtype);
      Tensor qkv = Tensor::zeros({1, 1, 3}, dtype);
      const Tensor z = constant_z(1, edge.re, edge.im, dtype);
      const GateLoopResult result = gate_loop_scan(qkv, z, {}, start.to(dtype));
      check_close(result.final.to(DType::f64), Tensor::from(std::vector<double>{edge.a_re, edge.a_im}, {1, 1, 1, 1, 2}),
                  1e-6, 1e-7);
      // The gradient is finite everywhere, and 0 at 0.
      const Tensors gradients =
          read_out_gradients({qkv, z, start.to(dtype)}, {{}, Tensor::ones({1, 1, 1, 1, 2}, dtype)}, scan);
      for (const double g : gradients[1].to_vector<double>()) {
        CHECK(std::isfinite(g));
        if (edge.re == 0 && edge.im == 0) CHECK(g == 0);
      }
    }
  }
}

TEST_CASE("near zero the gradient turns with 1 / |z|, bounded from |z| = 1e-20 on and nowhere clipped") {
  const Tensor start = Tensor::from(std::vector<double>{1, 0}, {1, 1, 1, 1, 2});
  const Tensor across = Tensor::from(std::vector<double>{0, 1}, {1, 1, 1, 1, 2});
  for (const double size : {1e-3, 1e-10, 1e-19, 1e-25}) {
    CAPTURE(size);
    const Tensors gradients = read_out_gradients(
        {Tensor::zeros({1, 1, 3}), constant_z(1, size, 0), start.to(DType::f32)}, {{}, across.to(DType::f32)}, scan);
    const double expected = sigmoid_of(size) / std::max(size, 1e-20);
    CHECK(gradients[1].to_vector<double>()[1] == Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("the angle is continuous across the negative axis, values and gradients") {
  Generator generator(5);
  const Tensor qkv = random_normal({1, 40, 3}, generator, 0, 1, DType::f64);
  const auto run = [&](double im) {
    Tensors results = read_out_gradients({qkv, constant_z(40, -1.5, im, DType::f64), {}},
                                         {Tensor::ones({1, 40, 1}, DType::f64), {}}, scan);
    results.push_back(gate_loop_scan(qkv, constant_z(40, -1.5, im, DType::f64)).output);
    return results;
  };
  const Tensors above = run(1e-12), on = run(0), below = run(-1e-12);
  for (const size_t i : {0, 1, 3}) {
    check_close(above[i], on[i], 1e-9, 1e-9);
    check_close(below[i], on[i], 1e-9, 1e-9);
  }
}

TEST_CASE("a transition of magnitude 1 does not grow over 65536 steps") {
  constexpr int64_t kTime = 65536;
  for (const double angle : {0.0, 0.3, 1.1, 2.9}) {
    for (const int64_t size : {1, 2}) {
      CAPTURE(angle, size);
      std::vector<double> state(static_cast<size_t>(2 * size * size));
      state[0] = 1;
      const GateLoopResult result = gate_loop_scan(Tensor::zeros({1, kTime, 3 * size}),
                                                   constant_z(kTime, 30 * std::cos(angle), 30 * std::sin(angle)), {},
                                                   Tensor::from(state, {1, 1, size, size, 2}).to(DType::f32));
      const std::vector<double> last = result.final.to_vector<double>();
      const double growth = std::hypot(last[0], last[1]);
      CHECK(growth <= 1.01);
      CHECK(growth >= 0.99);
    }
  }
}

TEST_CASE("f32 stays with f64 over 8192 steps, values and gradients, both forms") {
  Generator generator(6);
  for (const double deviation : {1.0, 30.0}) {
    for (const int64_t size : {1, 4}) {
      CAPTURE(deviation, size);
      const Tensor qkv = random_normal({1, 8192, 12}, generator),
                   z = random_normal({1, 8192, 4 / size, 2}, generator, 0, deviation),
                   dy = random_normal({1, 8192, 4}, generator);
      const auto f64 = [](const Tensor& x) { return x.to(DType::f64); };
      check_close_in_norm(gate_loop_scan(qkv, z).output, gate_loop_scan(f64(qkv), f64(z)).output.to(DType::f32), 1e-5);
      const Tensors single = read_out_gradients({qkv, z, {}}, {dy, {}}, scan),
                    twice = read_out_gradients({f64(qkv), f64(z), {}}, {f64(dy), {}}, scan);
      for (size_t i = 0; i < 2; ++i) check_close_in_norm(single[i], twice[i].to(DType::f32), 1e-5);
    }
  }
}

TEST_CASE("a query of 0 reads nothing and sends nothing back to keys, values and z") {
  Generator generator(7);
  for (const int64_t size : {1, 3}) {
    Tensor qkv = random_normal({1, 20, 6 * size}, generator);
    qkv.as_strided({1, 20, 2 * size}, qkv.strides(), 0).copy_from(Tensor::zeros({1, 20, 2 * size}));
    const Tensor z = random_normal({1, 20, 2, 2}, generator), dy = Tensor::ones({1, 20, 2 * size});
    check_close(gate_loop_scan(qkv, z).output, Tensor::zeros({1, 20, 2 * size}), 0);
    const Tensors gradients = read_out_gradients({qkv, z, {}}, {dy, {}}, scan);
    for (const double g : gradients[1].to_vector<double>()) CHECK(g == 0);
    const std::vector<double> packed = gradients[0].to_vector<double>();
    for (size_t i = 0; i < packed.size(); ++i)
      if (i % static_cast<size_t>(6 * size) >= static_cast<size_t>(2 * size)) CHECK(packed[i] == 0);
  }
}

TEST_CASE(
    "only part of the gradient reaches z, none of its imaginary part where the transition is real, none where it is "
    "1") {
  Generator generator(8);
  for (const int64_t size : {1, 2}) {
    const Tensor qkv = random_normal({1, 30, 6 * size}, generator, 0, 1, DType::f64),
                 z = random_normal({1, 30, 2, 2}, generator, 0, 1, DType::f64),
                 dy = random_normal({1, 30, 2 * size}, generator, 0, 1, DType::f64);
    const auto gradients = [&](GateLoopOptions options) {
      return read_out_gradients({qkv, z, {}}, {dy, {}},
                                [&](const Tensors& in) { return gate_loop_scan(in[0], in[1], options); });
    };
    const Tensors all = gradients({}), most = gradients({Transition::complex, 0.9});
    check_identical(most[0], all[0]);
    for (int64_t i = 0; i < z.elements(); ++i)
      CHECK(most[1].data<double>()[i] == Approx(0.9 * all[1].data<double>()[i]).epsilon(1e-13).margin(1e-15));
    const std::vector<double> real = gradients({Transition::real})[1].to_vector<double>();
    for (size_t i = 1; i < real.size(); i += 2) CHECK(real[i] == 0);
    for (const double g : gradients({Transition::one})[1].to_vector<double>()) CHECK(g == 0);
  }
}

TEST_CASE("simple_gate_loop_scan follows its recurrence, either way, and in pieces to the bit") {
  Generator generator(9);
  for (const auto& [batch, time, channel] :
       std::vector<std::array<int64_t, 3>>{{2, 1, 3}, {3, 63, 1}, {1, 65, 1000}, {2, 5, 4100}, {1, 1500, 5}}) {
    for (const Direction direction : {Direction::forward, Direction::reverse}) {
      const Tensor packed = random_normal({batch, time, 3 * channel}, generator, 0, 2),
                   initial = random_normal({batch, channel}, generator);
      const Grid in(packed);
      Grid y = scan_oracle(batch, time, channel, direction, initial, 0,
                           [&, c3 = channel](int64_t n, int64_t t, int64_t c, double h) {
                             return sigmoid_of(in.at(n, t, 2 * c3 + c)) * h + in.at(n, t, c3 + c);
                           });
      const int64_t last = direction == Direction::forward ? time - 1 : 0;
      const Tensor final = step_of(y.tensor(DType::f32), last);
      for (int64_t n = 0; n < batch; ++n)
        for (int64_t t = 0; t < time; ++t)
          for (int64_t c = 0; c < channel; ++c) y.at(n, t, c) *= in.at(n, t, c);
      CAPTURE(batch, time, channel);
      const GateLoopResult result = simple_gate_loop_scan(packed, initial, direction);
      check_close_in_norm(result.output, y.tensor(DType::f32), 1e-6);
      check_close_in_norm(result.final, final, 1e-6);
      if (direction == Direction::reverse || time < 63 || channel == 5) continue;  // cut time rounds differently
      Tensor state = initial;
      for (int64_t begin = 0; begin < time; begin += 7) {
        const int64_t end = std::min(time, begin + 7);
        const GateLoopResult part = simple_gate_loop_scan(part_of_time(packed, begin, end), state);
        check_identical(part.output, part_of_time(result.output, begin, end).clone());
        state = part.final;
      }
      check_identical(state, result.final);
    }
  }
}

TEST_CASE("read-out scans: cutting time rounds, threads change nothing, views are read in place") {
  Generator generator(10);
  const auto four = [](const Tensor& x) {
    return x.as_strided(x.shape().with(0, 4), x.strides().with(0, 0), 0).clone();
  };
  const auto first = [](const Tensor& x) { return x.as_strided(x.shape().with(0, 1), x.strides(), 0).clone(); };
  const auto simple = [](const Tensors& in) { return simple_gate_loop_scan(in[0], {}, Direction::reverse); };
  const auto loop = [](const Tensors& in) { return gate_loop_scan(in[0], in[1]); };
  const auto check = [&](const Tensors& inputs, const Tensor& dy, auto run) {
    Tensors copies;
    for (const Tensor& x : inputs) copies.push_back(four(x));
    const Tensors cut = read_out_gradients(inputs, {dy, {}}, run),
                  serial = read_out_gradients(copies, {four(dy), {}}, run);
    for (size_t i = 0; i < cut.size(); ++i) check_close_in_norm(cut[i], first(serial[i]), 5e-6);
    check_close_in_norm(run(inputs).output, first(run(copies).output), 5e-6);
    for (const int count : {1, 5}) {
      const WithThreads limit(count);
      const Tensors again = read_out_gradients(inputs, {dy, {}}, run);
      for (size_t i = 0; i < cut.size(); ++i) check_identical(again[i], cut[i]);
    }
  };
  const Tensor packed = random_normal({1, 2000, 15}, generator), z = random_normal({1, 2000, 5, 2}, generator),
               dy = random_normal({1, 2000, 5}, generator);
  check({packed}, dy, simple);
  check({packed, z}, dy, loop);
  check({random_normal({1, 300, 24}, generator), random_normal({1, 300, 2, 2}, generator)},
        random_normal({1, 300, 8}, generator), loop);

  // Every other token of a wider projection whose width is odd.
  const Tensor wide = random_normal({2, 40, 41}, generator), wide_z = random_normal({2, 40, 13}, generator);
  for (const int64_t heads : {6, 2}) {
    const Tensor view = wide.as_strided({2, 20, 18}, {1640, 82, 1}, 3),
                 view_z = wide_z.as_strided({2, 20, heads, 2}, {520, 26, 2, 1}, 1),
                 transposed = random_normal({6, 20, 2}, generator).as_strided({2, 20, 6}, {1, 2, 40}, 0);
    check_identical(loop({view, view_z}).output, loop({view.clone(), view_z.clone()}).output);
    const Tensors from_views = read_out_gradients({view, view_z}, {transposed, {}}, loop),
                  from_copies = read_out_gradients({view.clone(), view_z.clone()}, {transposed.clone(), {}}, loop);
    for (size_t i = 0; i < 2; ++i) check_identical(from_views[i], from_copies[i]);
  }
}

TEST_CASE("read-out scans of nothing, and a final state that passes through") {
  for (const auto& [shape, heads] : std::vector<std::pair<Shape, int64_t>>{
           {{0, 4, 9}, 3}, {{2, 4, 0}, 0}, {{0, 4, 12}, 2}, {{2, 0, 9}, 3}, {{2, 0, 12}, 2}}) {
    CAPTURE(shape, heads);
    const int64_t size = heads > 0 ? shape[2] / 3 / heads : 1;
    const GateLoopResult result = gate_loop_scan(Tensor::ones(shape), Tensor::ones({shape[0], shape[1], heads, 2}));
    CHECK(result.output.shape() == shape.with(2, shape[2] / 3));
    check_identical(result.final, Tensor::zeros({shape[0], heads, size, size, 2}));
  }
  for (const int64_t size : {1, 3}) {
    const Tensor initial = Tensor::full({2, 2, size, size, 2}, 1.5);
    check_identical(gate_loop_scan(Tensor::ones({2, 0, 6 * size}), Tensor::ones({2, 0, 2, 2}), {}, initial).final,
                    initial);
  }
  check_identical(simple_gate_loop_scan(Tensor::ones({2, 0, 9}), Tensor::full({2, 3}, 2)).final,
                  Tensor::full({2, 3}, 2));
  CHECK(simple_gate_loop_scan(Tensor::ones({0, 5, 9})).output.shape() == Shape{0, 5, 3});
}

TEST_CASE("gate loops refuse what they cannot read, by name") {
  const Tensor qkv = Tensor::ones({2, 4, 18}), z = Tensor::ones({2, 4, 6, 2});
  CHECK_THROWS_WITH(gate_loop_scan(Tensor::ones({2, 4, 17}), z), ContainsSubstring("wanted 3 * channel values"));
  CHECK_THROWS_WITH(gate_loop_scan(qkv, Tensor::ones({2, 4, 4, 2})),
                    ContainsSubstring("4 heads, which do not share 6"));
  CHECK_THROWS_WITH(gate_loop_scan(qkv, Tensor::ones({2, 4, 12})),
                    ContainsSubstring("wanted [batch, time, channel, 2]"));
  CHECK_THROWS_WITH(gate_loop_scan(qkv, Tensor::ones({2, 5, 6, 2})), ContainsSubstring("the same batch and time"));
  CHECK_THROWS_WITH(gate_loop_scan(qkv, z.to(DType::f64)), ContainsSubstring("gate_loop_scan"));
  CHECK_THROWS_WITH(gate_loop_scan(qkv, z, {}, Tensor::ones({2, 6, 2})), ContainsSubstring("initial state"));
  CHECK_THROWS_WITH(simple_gate_loop_scan(Tensor::ones({2, 4})), ContainsSubstring("wanted [batch, time, channel]"));
  CHECK_THROWS_WITH(simple_gate_loop_scan(qkv, Tensor::ones({2, 5})), ContainsSubstring("initial state"));
}

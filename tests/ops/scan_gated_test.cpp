#include <array>
#include <functional>
#include <numbers>

#include "monoid/ops/scan.h"
#include "monoid/tests/ops/scan_oracle.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

using namespace monoid;
using namespace monoid::test;

namespace {

using PackedScan = ScanResult (*)(const Tensor&, const Tensor&);

struct Cell {
  const char* name;
  PackedScan scan;
  Grid (*oracle)(const Tensor&, const Tensor&);
  int64_t parts;
};

const std::vector<Cell> kCells = {{"min_gru_scan", min_gru_scan, min_gru_oracle, 2},
                                  {"min_lstm_scan", min_lstm_scan, min_lstm_oracle, 3}};
const Cell& kMinGru = kCells[0];
const Cell& kMinLstm = kCells[1];

// hidden and each gate of a packed projection, from functions of the time step.
Tensor packed_of(int64_t time, int64_t channel, std::initializer_list<std::function<double(int64_t)>> parts,
                 DType dtype = DType::f32) {
  Grid grid(1, time, channel * static_cast<int64_t>(parts.size()));
  for (int64_t t = 0; t < time; ++t) {
    int64_t column = 0;
    for (const auto& part : parts)
      for (int64_t c = 0; c < channel; ++c) grid.at(0, t, column++) = part(t);
  }
  return grid.tensor(dtype);
}

std::function<double(int64_t)> constantly(double value) {
  return [=](int64_t) { return value; };
}

// Gaussian numbers; t says nothing.
std::function<double(int64_t)> normally(Generator& generator, double mean, double deviation) {
  return [&generator, mean, deviation](int64_t) {
    const double radius = std::sqrt(-2 * std::log1p(-generator.uniform()));
    return mean + deviation * radius * std::cos(2 * std::numbers::pi * generator.uniform());
  };
}

Tensor in_f32(const Grid& grid) { return grid.tensor(DType::f32); }

// Copies of one sequence, enough of them that time is not cut.
Tensor repeated(const Tensor& x, int64_t copies) {
  Tensor result = Tensor::empty(x.shape().with(0, copies), x.dtype());
  result.copy_from(x.as_strided(result.shape(), x.strides().with(0, 0), 0));
  return result;
}
Tensor first_of(const Tensor& x) { return x.as_strided(x.shape().with(0, 1), x.strides(), 0).clone(); }

}  // namespace

TEST_CASE("gated scans follow their recurrence at every size and state") {
  Generator generator(1);
  for (const Cell& cell : kCells) {
    for (const Shape& size : {Shape{2, 1, 3}, Shape{1, 2, 33}, Shape{3, 63, 1}, Shape{2, 64, 31}, Shape{1, 65, 1000},
                              Shape{2, 127, 33}, Shape{1, 1000, 3}, Shape{2, 5, 4100}, Shape{1, 1024, 33}}) {
      const Tensor packed = random_normal({size[0], size[1], cell.parts * size[2]}, generator, 0, 3);
      for (const double start : {-1.0, 0.0, 1e3, 1e-30}) {  // -1: none
        const Tensor initial = start < 0 ? Tensor() : Tensor::full({size[0], size[2]}, start);
        CAPTURE(cell.name, size, start);
        const ScanResult result = cell.scan(packed, initial);
        check_close(result.states, in_f32(cell.oracle(packed, initial)), 2e-6);
        check_identical(result.final, step_of(result.states, size[1] - 1));
      }
    }
  }
}

TEST_CASE("gated scans of nothing have nothing, and without steps the final state is the initial one") {
  for (const Cell& cell : kCells) {
    for (const Shape& size : {Shape{0, 4, 3}, Shape{2, 4, 0}, Shape{0, 2000, 3}, Shape{1, 2000, 0}}) {
      const ScanResult result = cell.scan(Tensor::ones({size[0], size[1], cell.parts * size[2]}), {});
      CHECK(result.states.shape() == size);
      CHECK(result.final.shape() == Shape{size[0], size[2]});
    }
    const Tensor none = Tensor::ones({2, 0, 3 * cell.parts}), initial = Tensor::full({2, 3}, 1.5);
    check_identical(cell.scan(none, initial).final, initial);
    check_identical(cell.scan(none, {}).final, Tensor::zeros({2, 3}));
  }
}

TEST_CASE("minGRU in f32 stays within 1e-5 of f64 over 65536 steps for every kind of gate") {
  // The kinds and bounds of the error table of the design notes; rows that run whole, and rows cut into chunks.
  struct Kind {
    double mean, deviation, hidden_mean, hidden_deviation, start, bound;
  };
  constexpr int64_t kTime = 65536;
  for (const Kind& kind : {Kind{0, 1, 0, 1, -1, 1e-6}, Kind{0, 5, 0, 1, -1, 1e-6}, Kind{6, 1, 0, 1, -1, 1e-6},
                           Kind{0, 50, 0, 1, -1, 1e-6}, Kind{-6, 1, 0, 1, -1, 3e-6}, Kind{-12, 0.01, 0, 1, -1, 1.2e-5},
                           Kind{-12, 0, 0, 1, -1, 1.2e-5}, Kind{0, 1, -15, 10, 1e3, 2e-6}}) {
    Generator generator(2);
    CAPTURE(kind.mean, kind.deviation, kind.start);
    const Tensor packed = packed_of(
        kTime, 1,
        {normally(generator, kind.hidden_mean, kind.hidden_deviation), normally(generator, kind.mean, kind.deviation)});
    const Tensor initial = kind.start < 0 ? Tensor() : Tensor::full({1, 1}, kind.start);
    const Tensor expected = in_f32(min_gru_oracle(packed, initial));
    check_close(min_gru_scan(packed, initial).states, expected, kind.bound, 1e-36);
    const Tensor serial = min_gru_scan(repeated(packed, 2), initial.defined() ? repeated(initial, 2) : initial).states;
    check_close(first_of(serial), expected, kind.bound, 1e-36);
  }
}

TEST_CASE("minGRU and minLSTM gradients in f32 stay within 1e-5 of f64 over 8192 steps") {
  constexpr int64_t kTime = 8192;
  for (const Cell& cell : kCells) {
    for (const auto& [mean, deviation] : {std::array{0.0, 1.0}, {6.0, 1.0}, {0.0, 50.0}, {-6.0, 1.0}, {-12.0, 0.0}}) {
      Generator generator(3);
      CAPTURE(cell.name, mean, deviation);
      const auto hidden = normally(generator, 0, 1), gate = normally(generator, mean, deviation),
                 other = normally(generator, 0, 1);
      const Tensor one =
          cell.parts == 2 ? packed_of(kTime, 1, {hidden, gate}) : packed_of(kTime, 1, {hidden, other, gate});
      const auto run = [&](const Tensors& in) { return cell.scan(in[0], in[1]); };
      for (const int64_t batch : {1, 2}) {  // cut in chunks, and not
        const Tensor packed = repeated(one, batch), initial = Tensor::full({batch, 1}, 0.75);
        const Tensor cotangent = repeated(random_normal({1, kTime, 1}, generator), batch);
        const Tensor final_cotangent = Tensor::full({batch, 1}, 2);
        const Tensors single = gradients_of({packed, initial}, {cotangent, final_cotangent}, run);
        const Tensors twice = gradients_of({packed.to(DType::f64), initial.to(DType::f64)},
                                           {cotangent.to(DType::f64), final_cotangent.to(DType::f64)}, run);
        check_close_in_norm(single[0], twice[0].to(DType::f32), 1e-5);
        // One number, what thousands of random cotangents leave of each other.
        check_close(single[1], twice[1].to(DType::f32), 1e-5, 1e-3);
      }
    }
  }
}

TEST_CASE("gates at their limits take exactly the new value or keep exactly the old one") {
  const Tensor initial = Tensor::full({1, 3}, 7);
  for (const double k : {100.0, 1e4, kInf}) {
    CAPTURE(k);
    const Tensor take = packed_of(4, 3, {constantly(2), constantly(k)}),
                 keep = packed_of(4, 3, {constantly(2), constantly(-k)});
    check_identical(min_gru_scan(take, initial).states, Tensor::full({1, 4, 3}, 2.5));
    check_identical(min_gru_scan(keep, initial).states, Tensor::full({1, 4, 3}, 7));
    const Tensor lstm_take = packed_of(4, 3, {constantly(2), constantly(-k), constantly(k)});
    const Tensor lstm_keep = packed_of(4, 3, {constantly(2), constantly(k), constantly(-k)});
    check_identical(min_lstm_scan(lstm_take, initial).states, Tensor::full({1, 4, 3}, 2.5));
    check_identical(min_lstm_scan(lstm_keep, initial).states, Tensor::full({1, 4, 3}, 7));
    for (const Tensor& packed : {take, keep}) {
      const auto run = [](const Tensors& in) { return min_gru_scan(in[0], in[1]); };
      for (const Tensor& gradient : gradients_of({packed, initial}, {Tensor::ones({1, 4, 3}), {}}, run))
        for (const double value : gradient.to_vector<double>()) CHECK(std::isfinite(value));
    }
  }
  const Tensor half = packed_of(1, 1, {constantly(2), constantly(0)});
  check_identical(min_gru_scan(half, Tensor::full({1, 1}, 1)).final, Tensor::full({1, 1}, 1.75));
}

TEST_CASE("minLSTM gates keep their precision and their gradients where both sigmoids vanish or saturate") {
  struct Gates {
    double f, i;
  };
  for (const Gates& gates : {Gates{0, 0},
                             {-50, -49},
                             {50, 49},
                             {-1e4, -1e4 + 1},
                             {1e4, -1e4},
                             {-1e4, 1e4},
                             {1e4, 1e4},
                             {-1e4, -1e4},
                             {-1e4, -50},
                             {-30, -1e4},
                             {12, -12},
                             {-12, 12},
                             {3, -100}}) {
    CAPTURE(gates.f, gates.i);
    const auto hidden = constantly(-0.75);
    const Tensor packed = packed_of(3, 2, {hidden, constantly(gates.f), constantly(gates.i)});
    const Tensor initial = Tensor::full({1, 2}, 2);
    check_close(min_lstm_scan(packed, initial).states, in_f32(min_lstm_oracle(packed, initial)), 1e-6);
    // d(logit)/df = -sigmoid(-f), d(logit)/di = sigmoid(-i); one step from h = 2 to h + z (g - h).
    const Tensor step = packed_of(1, 2, {hidden, constantly(gates.f), constantly(gates.i)});
    const auto run = [](const Tensors& in) { return min_lstm_scan(in[0], in[1]); };
    const std::vector<double> gradient =
        gradients_of({step, initial}, {Tensor::ones({1, 1, 2}), {}}, run)[0].to_vector<double>();
    const double d = softplus_of(-gates.f) - softplus_of(-gates.i);
    const double logit = (exact_g(-0.75) - 2) * sigmoid_of(d) * sigmoid_of(-d);
    CHECK(gradient[2] == Approx(-logit * sigmoid_of(-gates.f)).epsilon(2e-6).margin(1e-36));
    CHECK(gradient[4] == Approx(logit * sigmoid_of(-gates.i)).epsilon(2e-6).margin(1e-36));
  }
}

TEST_CASE("g is x + 0.5 from 0 on, negative zero included, and sigmoid below") {
  for (const Cell& cell : kCells) {
    for (const double x : {0.0, -0.0, -1e-8, 1e-8, 50.0, -50.0, -kInf, 1e4}) {
      CAPTURE(cell.name, x);
      const auto open = constantly(200), closed = constantly(-200);
      const Tensor packed =
          cell.parts == 2 ? packed_of(1, 1, {constantly(x), open}) : packed_of(1, 1, {constantly(x), closed, open});
      const double g = cell.scan(packed, {}).final.item();
      CHECK(g == Approx(x == -kInf ? 0 : exact_g(static_cast<float>(x))).epsilon(3e-7).margin(1e-37));
      const auto run = [&](const Tensors& in) { return cell.scan(in[0], {}); };
      const double slope = gradients_of({packed}, {Tensor::ones({1, 1, 1}), {}}, run)[0].to_vector<double>()[0];
      CHECK(slope == Approx(x >= 0 ? 1 : g * (1 - g)).epsilon(1e-6).margin(1e-37));
    }
  }
}

TEST_CASE("a NaN stays in its channel and runs only forward in time") {
  constexpr int64_t kTime = 40, kChannel = 37, kBadTime = 11, kBadChannel = 5;
  for (const Cell& cell : kCells) {
    for (int64_t part = 0; part < cell.parts; ++part) {
      CAPTURE(cell.name, part);
      Generator generator(4);
      const Tensor clean = random_normal({2, kTime, cell.parts * kChannel}, generator);
      Tensor spoiled = clean.clone();
      spoiled.data<float>()[kBadTime * cell.parts * kChannel + part * kChannel + kBadChannel] = NAN;
      const Grid expected(cell.scan(clean, {}).states), actual(cell.scan(spoiled, {}).states);
      int64_t wrong = 0;
      for (int64_t b = 0; b < 2; ++b) {
        for (int64_t t = 0; t < kTime; ++t) {
          for (int64_t c = 0; c < kChannel; ++c) {
            const bool reached = b == 0 && c == kBadChannel && t >= kBadTime;
            wrong += reached ? !std::isnan(actual.at(b, t, c)) : actual.at(b, t, c) != expected.at(b, t, c);
          }
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("prefill, decode and chunks with carried state give the bits of the whole sequence") {
  Generator generator(5);
  for (const Cell& cell : kCells) {
    const Tensor packed = random_normal({3, 65, cell.parts * 33}, generator, 0, 2);
    const ScanResult whole = cell.scan(packed, {});
    for (const int64_t chunk : {1, 13, 64}) {
      CAPTURE(cell.name, chunk);
      Tensor state;
      for (int64_t begin = 0; begin < 65; begin += chunk) {
        const int64_t end = std::min<int64_t>(65, begin + chunk);
        const ScanResult part = cell.scan(stretch(packed, begin, end), state);
        check_identical(part.states, stretch(whole.states, begin, end));
        state = part.final;
      }
      check_identical(state, whole.final);
    }
  }
}

TEST_CASE("cutting a gated scan into chunks changes states and gradients by rounding only") {
  constexpr int64_t kTime = 3000, kChannel = 19;
  for (const Cell& cell : kCells) {
    for (const double mean : {0.0, 6.0, -6.0, -12.0}) {
      Generator generator(6);
      CAPTURE(cell.name, mean);
      const Tensor packed = random_normal({1, kTime, cell.parts * kChannel}, generator, mean, 1);
      const Tensor initial = random_uniform({1, kChannel}, generator, 0, 2);
      const Tensor cotangent = random_normal({1, kTime, kChannel}, generator);
      const Tensor final_cotangent = random_normal({1, kChannel}, generator);
      const auto run = [&](const Tensors& in) { return cell.scan(in[0], in[1]); };
      const ScanResult cut = run({packed, initial}), serial = run({repeated(packed, 2), repeated(initial, 2)});
      check_close(cut.states, first_of(serial.states), 5e-6);
      check_close(cut.final, first_of(serial.final), 5e-6);
      const Tensors cut_gradients = gradients_of({packed, initial}, {cotangent, final_cotangent}, run);
      const Tensors gradients = gradients_of({repeated(packed, 2), repeated(initial, 2)},
                                             {repeated(cotangent, 2), repeated(final_cotangent, 2)}, run);
      for (size_t i = 0; i < 2; ++i) check_close_in_norm(cut_gradients[i], first_of(gradients[i]), 5e-6);
    }
  }
}

TEST_CASE("gated scans do not depend on the number of threads or on the run") {
  Generator generator(7);
  for (const Cell& cell : kCells) {
    for (const Shape& size : {Shape{1, 2000, 40}, Shape{5, 300, 100}, Shape{1, 40, 3000}}) {
      const Tensor packed = random_normal({size[0], size[1], cell.parts * size[2]}, generator);
      const Tensor cotangent = random_normal(size, generator);
      const auto run = [&](const Tensors& in) { return cell.scan(in[0], {}); };
      const auto all = [&](int count) {
        const WithThreads limit(count);
        return Tensors{run({packed}).states, gradients_of({packed}, {cotangent, {}}, run)[0]};
      };
      const Tensors one = all(1);
      for (const int count : {1, 2, 5}) {
        const Tensors many = all(count);
        for (size_t i = 0; i < one.size(); ++i) check_identical(many[i], one[i]);
      }
    }
  }
}

TEST_CASE("packed projections are read in place from wider tensors") {
  Generator generator(8);
  for (const Cell& cell : kCells) {
    const int64_t width = 17 * cell.parts;
    const Tensor wide = random_normal({6, 20, 100}, generator);
    const Tensor view = wide.as_strided({3, 20, width}, {4000, 100, 1}, 3), copy = view.clone();
    const Tensor row = random_uniform({17}, generator), shared = row.as_strided({3, 17}, {0, 1}, 0);
    const Tensor cotangent = random_normal({17, 20, 3}, generator).as_strided({3, 20, 17}, {1, 3, 60}, 0);
    const auto run = [&](const Tensors& in) { return cell.scan(in[0], in[1]); };
    check_identical(run({view, shared}).states, run({copy, shared.clone()}).states);
    const Tensors from_views = gradients_of({view, shared}, {cotangent, {}}, run);
    const Tensors from_copies = gradients_of({copy, shared.clone()}, {cotangent.clone(), {}}, run);
    for (size_t i = 0; i < 2; ++i) check_identical(from_views[i], from_copies[i]);
  }
}

TEST_CASE("minGRU's zero decay forgets and zero input keeps, in states and in gradients") {
  // z = 1: the state and its gradient are cut off; z = 0: nothing comes in and all goes back.
  const auto run = [](const Tensors& in) { return min_gru_scan(in[0], in[1]); };
  const Tensor initial = Tensor::full({1, 1}, 3);
  const Tensor cut = packed_of(5, 1, {constantly(1), [](int64_t t) { return t == 2 ? kInf : 0.5; }});
  const Tensors cut_gradients = gradients_of({cut, initial}, {{}, Tensor::ones({1, 1})}, run);
  CHECK(cut_gradients[1].item() == 0);
  const Tensor held = packed_of(5, 1, {constantly(1), constantly(-kInf)});
  const Tensors held_gradients = gradients_of({held, initial}, {{}, Tensor::ones({1, 1})}, run);
  CHECK(held_gradients[1].item() == 1);
  check_close(held_gradients[0], Tensor::zeros({1, 5, 2}), 0);
}

TEST_CASE("gated scans refuse what they cannot read, by name") {
  const Tensor x = Tensor::ones({2, 4, 6});
  CHECK_THROWS_WITH(min_gru_scan(Tensor()), ContainsSubstring("min_gru_scan: the packed projection"));
  CHECK_THROWS_WITH(min_gru_scan(Tensor::ones({2, 4, 5})), ContainsSubstring("2 * channel"));
  CHECK_THROWS_WITH(min_lstm_scan(Tensor::ones({2, 4, 8})), ContainsSubstring("3 * channel"));
  CHECK_THROWS_WITH(min_gru_scan(x, Tensor::ones({2, 4})), ContainsSubstring("initial state"));
  CHECK_THROWS_WITH(min_gru_scan(x.to(DType::bf16)), ContainsSubstring("cast() it first"));
  CHECK_THROWS_WITH(min_gru_scan(x.as_strided({2, 4, 6}, {24, 0, 1}, 0)), ContainsSubstring("positive strides"));
  CHECK_THROWS_WITH(min_gru_scan(x.as_strided({2, 4, 6}, {24, -6, 1}, 18)), ContainsSubstring("positive strides"));
  CHECK_THROWS_WITH(min_lstm_scan(x.as_strided({2, 4, 6}, {24, 1, 4}, 0)), ContainsSubstring("adjacent channels"));
  Tensor initial = Tensor::ones({2, 3});
  initial.data<float>()[4] = -0.25f;
  CHECK_THROWS_WITH(min_gru_scan(x, initial),
                    ContainsSubstring("min_gru_scan: the initial state must not be negative, got -0.25 at [1, 1]"));
  CHECK_THROWS_WITH(min_lstm_scan(x.as_strided({2, 4, 6}, {24, 6, 1}, 0), Tensor::full({2, 2}, -1)),
                    ContainsSubstring("min_lstm_scan"));
}

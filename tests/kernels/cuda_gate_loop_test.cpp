#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/recall.h"
#include "monoid/tests/kernels/cuda_scan_support.h"

using namespace monoid;
using namespace monoid::test;

namespace {

// CUDA against the CPU in f64 on the same numbers. All kinds take [batch, time, channel]; `loop` is GateLoop with a
// channel a head, `outer` with heads of several channels.
enum class ReadKind { complex, loop, outer, simple };
constexpr ReadKind kReadKinds[] = {ReadKind::complex, ReadKind::loop, ReadKind::outer, ReadKind::simple};

struct Problem {
  ReadKind kind;
  int64_t batch, time, channel, heads;
  Direction direction = Direction::forward;
  GateLoopOptions options = {};

  bool real() const { return kind == ReadKind::simple; }
  Shape sequence() const {
    return kind == ReadKind::complex ? Shape{batch, time, channel, 2} : Shape{batch, time, channel};
  }
  Shape packed() const { return {batch, time, 3 * channel}; }
  Shape angles() const { return {batch, time, kind == ReadKind::outer ? heads : channel, 2}; }
  Shape state() const {
    if (real()) return {batch, channel};
    if (kind == ReadKind::outer) return {batch, heads, channel / heads, channel / heads, 2};
    return kind == ReadKind::loop ? Shape{batch, channel, 1, 1, 2} : Shape{batch, channel, 2};
  }
  Shape kept() const {
    const int64_t groups = recall_groups(time);
    return real() ? Shape{batch, groups, channel} : Shape{batch, groups, channel, 2};
  }
};

Operands draw_for(const Problem& problem, Generator& generator, bool with_state = true) {
  Operands result;
  if (problem.kind == ReadKind::complex) {
    result.in = {random_uniform(problem.sequence(), generator, -0.7, 0.7),
                 random_normal(problem.sequence(), generator)};
  } else {
    result.in = {random_normal(problem.packed(), generator)};
    if (!problem.real()) result.in.push_back(random_normal(problem.angles(), generator, 0, 2));
  }
  if (with_state) result.initial = random_normal(problem.state(), generator);
  result.cotangent = random_normal(problem.sequence(), generator);
  result.final_cotangent = random_normal(problem.state(), generator);
  return result;
}

/// Output, final state and gradients. For complex_scan, whose gradient reads the states, those given if any.
Tensors run_all(const Problem& problem, const Operands& x, const Tensor& given_states = {}, int64_t skipped = 0) {
  const DType dtype = x.in[0].dtype();
  const Device device = x.in[0].device();
  std::vector<Shape> shapes{problem.sequence(), problem.state()};
  for (const Tensor& in : x.in) shapes.push_back(in.shape());
  if (x.initial.defined()) shapes.push_back(problem.state());
  Outputs out(shapes, dtype, device, skipped);
  Tensors& to = out.tensors;
  Tensor none, &initial_gradient = x.initial.defined() ? to.back() : none;
  Tensor kept = Tensor::empty(problem.kept(), dtype == DType::f64 ? DType::f64 : DType::f32, device);
  switch (problem.kind) {
    case ReadKind::complex:
      kernels::complex_scan(x.in[0], x.in[1], x.initial, to[0], to[1], problem.direction);
      kernels::complex_scan_gradient(x.in[0], x.initial, given_states.defined() ? given_states : to[0], x.cotangent,
                                     x.final_cotangent, to[2], to[3], initial_gradient, problem.direction);
      break;
    case ReadKind::loop:
      kernels::gate_loop_scan(x.in[0], x.in[1], x.initial, to[0], to[1], kept, problem.options);
      kernels::gate_loop_scan_gradient(x.in[0], x.in[1], kept, x.cotangent, x.final_cotangent, to[2], to[3],
                                       initial_gradient, problem.options);
      break;
    case ReadKind::outer:
      kernels::gate_loop_outer_scan(x.in[0], x.in[1], x.initial, to[0], to[1], problem.options);
      kernels::gate_loop_outer_scan_gradient(x.in[0], x.in[1], x.initial, x.cotangent, x.final_cotangent, to[2], to[3],
                                             initial_gradient, problem.options);
      break;
    case ReadKind::simple:
      kernels::simple_gate_loop_scan(x.in[0], x.initial, to[0], to[1], kept, problem.direction);
      kernels::simple_gate_loop_scan_gradient(x.in[0], kept, x.cotangent, x.final_cotangent, to[2], initial_gradient,
                                              problem.direction);
      break;
  }
  out.check_intact();
  return to;
}

void check_problem(const Problem& problem, const Operands& operands, DType dtype, int64_t skipped = 0,
                   double tolerance = 1e-5) {
  CAPTURE(static_cast<int>(problem.kind), problem.batch, problem.time, problem.channel, problem.heads, dtype);
  const Operands stored = operands.as(dtype);
  const Tensors actual = run_all(problem, stored.on(kCuda), {}, skipped);
  const Tensors expected = run_all(problem, stored.as(DType::f64), actual[0].to(kCpu).to(DType::f64));
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    check_near(actual[i], expected[i], tolerance);
  }
}

void check_sizes(const std::vector<Problem>& problems) {
  Generator generator(1);
  for (const Problem& problem : problems) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      // One step of an outer state from nothing: the gradient of z is a difference of sums that cancel to 0.
      const bool vanishes = problem.kind == ReadKind::outer && problem.time == 1;
      const bool with_state = dtype == DType::f32 || problem.time % 2 == 0 || vanishes;
      check_problem(problem, draw_for(problem, generator, with_state), dtype);
    }
  }
}

}  // namespace

TEST_CASE("CUDA gate loops and complex scans follow the CPU's, small", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  for (const ReadKind kind : {ReadKind::complex, ReadKind::loop, ReadKind::simple})
    check_sizes({{kind, 1, 1, 1, 1},
                 {kind, 2, 2, 3, 3},
                 {kind, 3, 63, 33, 33},
                 {kind, 2, 65, 31, 31},
                 {kind, 1, 127, 2, 2},
                 {kind, 1, 700, 34, 34}});
  check_sizes({{ReadKind::outer, 1, 1, 2, 1},
               {ReadKind::outer, 2, 63, 6, 2},
               {ReadKind::outer, 1, 130, 66, 2},
               {ReadKind::outer, 2, 65, 70, 1}});
}

TEST_CASE("CUDA gate loops and complex scans follow the CPU's at every size", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  // Relayed, folded, spread; one row, one step, one channel of each.
  for (const ReadKind kind : {ReadKind::complex, ReadKind::loop, ReadKind::simple})
    check_sizes({{kind, 64, 1, 1000, 1000},
                 {kind, 1000, 127, 3, 3},
                 {kind, 300, 9, 300, 300},
                 {kind, 26, 70, 500, 500},
                 {kind, 120, 70, 128, 128},
                 {kind, 5, 1000, 31, 31},
                 {kind, 1, 500, 1000, 1000},
                 {kind, 2, 4097, 33, 33},
                 {kind, 1, 4099, 1, 1},
                 {kind, 1, 20002, 6, 6},
                 {kind, 40, 2, 4100, 4100}});
  check_sizes({{ReadKind::outer, 3, 200, 128, 2},
               {ReadKind::outer, 1, 1000, 96, 3},
               {ReadKind::outer, 2, 64, 200, 1},
               {ReadKind::outer, 1, 4097, 32, 8},
               {ReadKind::outer, 30, 3, 30, 10}});
}

TEST_CASE("CUDA gate loops of every transition, either way, with any cotangent left out", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(2);
  for (const ReadKind kind : kReadKinds) {
    for (const int absent : {0, 1, 2, 3}) {
      for (const int64_t time : {66, 1501}) {
        Problem problem{kind, 2, time, 6, 2};
        if (kind == ReadKind::complex || kind == ReadKind::simple) problem.direction = Direction::reverse;
        problem.options = {absent == 1 ? Transition::real : absent == 2 ? Transition::one : Transition::complex, 0.9};
        Operands operands = draw_for(problem, generator, absent != 2);
        if (absent & 1) operands.cotangent = {};
        if (absent & 2) operands.final_cotangent = {};
        CAPTURE(absent);
        // With a transition of 1, sums over all of time are compared: no decay forgets their rounding.
        check_problem(problem, operands, DType::f32, 0, problem.options.transition == Transition::one ? 5e-5 : 1e-5);
      }
    }
  }
}

TEST_CASE("CUDA gate loops of nothing pass the state through", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  Generator generator(3);
  for (const ReadKind kind : kReadKinds) {
    for (const bool with_state : {true, false}) {
      for (const auto& [batch, time] : {std::pair<int64_t, int64_t>{0, 4}, {2, 0}}) {
        const Problem problem{kind, batch, time, 6, 2};
        check_problem(problem, draw_for(problem, generator, with_state), DType::f32);
      }
    }
    if (kind == ReadKind::outer) continue;
    const Problem problem{kind, 2, 4, 0, 0};
    check_problem(problem, draw_for(problem, generator), DType::bf16);
  }
}

TEST_CASE("CUDA gate loops read strided views in place, aligned or not", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  Generator generator(4);
  for (const ReadKind kind : kReadKinds) {
    for (const int64_t offset : {4, 5}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Problem problem{kind, 2, 70, 34, 2};
        const Operands stored = draw_for(problem, generator).as(dtype), here = stored.on(kCuda);
        // Rows of a wider and longer buffer: all that is inside a step stays together.
        const auto inside = [&](const Tensor& x) {
          const int64_t row = x.elements() / (x.size(0) * x.size(1)), wide = row + 9;
          const Tensor buffer = Tensor::zeros({x.size(0) * x.size(1) * wide + 9}, dtype);
          Strides strides = x.strides();
          strides[1] = wide, strides[0] = wide * x.size(1);
          Tensor(buffer.as_strided(x.shape(), strides, offset)).copy_from(x);
          return buffer.to(kCuda).as_strided(x.shape(), strides, offset);
        };
        Operands viewed = here;
        for (size_t i = 0; i < stored.in.size(); ++i) viewed.in[i] = inside(stored.in[i]);
        viewed.cotangent = inside(stored.cotangent);
        CAPTURE(static_cast<int>(kind), offset, dtype);
        const double tolerance = dtype == DType::bf16 ? 0x1p-7 : 5e-6;  // both sides are rounded
        const Tensors plain = run_all(problem, here);
        const Tensors others = run_all(problem, viewed, plain[0], dtype == DType::f32 ? 2 : offset % 2);
        for (size_t i = 0; i < plain.size(); ++i) {
          CAPTURE(i);
          check_near(others[i], on_cpu(plain[i]), tolerance);
        }
      }
    }
  }
}

TEST_CASE("CUDA gate loops give the same bits every time", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(5);
  for (const ReadKind kind : kReadKinds) {
    for (const auto& [batch, time, channel] : {std::array<int64_t, 3>{1, 9000, 70}, {4, 300, 200}, {200, 70, 64}}) {
      const Problem problem{kind, batch, time, channel, 2};
      const Operands here = draw_for(problem, generator).on(kCuda);
      CAPTURE(static_cast<int>(kind), batch);
      check_repeats([&] { return run_all(problem, here); }, 10);
    }
  }
}

TEST_CASE("CUDA transitions at their edges are the CPU's", "[cuda][scan][quick]") {
  if (!cuda_or_skip()) return;
  Generator generator(6);
  const std::vector<double> edges = {0,     0,      -0.0, 0,    0,     2, 0,    -2,    -2,   0,  -2, -0.0,  1e-25,
                                     1e-25, -1e-25, 0,    1e20, -1e20, 0, 1e20, -3e38, 1e30, 30, 0,  1e-38, 1e-39};
  const auto count = static_cast<int64_t>(edges.size() / 2);
  for (const ReadKind kind : {ReadKind::loop, ReadKind::outer}) {
    // One step a batch entry, every channel or head at the same edge.
    const Problem problem{kind, count, 1, 4, 2};
    Operands operands = draw_for(problem, generator);
    float* z = operands.in[1].data<float>();
    const int64_t each = operands.in[1].elements() / count;
    for (int64_t b = 0; b < count; ++b)
      for (int64_t i = 0; i < each; ++i)
        z[b * each + i] = static_cast<float>(edges[static_cast<size_t>(2 * b + i % 2)]);
    const Tensors actual = run_all(problem, operands.on(kCuda)), expected = run_all(problem, operands);
    for (size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(static_cast<int>(kind), i);
      check_close(on_cpu(actual[i]), expected[i], 1e-5, 1e-5);
    }
  }
}

TEST_CASE("A CUDA transition of magnitude 1 does not grow over 65536 steps", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  constexpr int64_t kTime = 65536;
  for (const double angle : {0.0, 0.3, 1.1, 2.9}) {
    for (const ReadKind kind : {ReadKind::loop, ReadKind::outer}) {
      const Problem problem{kind, 1, kTime, 2, kind == ReadKind::loop ? 2 : 1};
      Operands operands;
      operands.in = {Tensor::zeros(problem.packed()), Tensor::empty(problem.angles())};
      float* z = operands.in[1].data<float>();
      for (int64_t i = 0; i < operands.in[1].elements(); i += 2)
        z[i] = static_cast<float>(30 * std::cos(angle)), z[i + 1] = static_cast<float>(30 * std::sin(angle));
      operands.initial = Tensor::ones(problem.state());
      const std::vector<double> last = on_cpu(run_all(problem, operands.on(kCuda))[1]).to_vector<double>();
      CAPTURE(angle, static_cast<int>(kind));
      for (size_t i = 0; i < last.size(); i += 2) {
        const double growth = std::hypot(last[i], last[i + 1]) / std::sqrt(2.0);
        CHECK(growth <= 1.01);
        CHECK(growth >= 0.99);
      }
    }
  }
}

TEST_CASE("However CUDA gate loops share their time, they agree", "[cuda][scan]") {
  if (!cuda_or_skip()) return;
  Generator generator(7);
  for (const ReadKind kind : {ReadKind::complex, ReadKind::loop, ReadKind::simple}) {
    const Problem one{kind, 1, 1102, 32, 32};
    const Operands operands = draw_for(one, generator).on(kCuda);
    const auto of = [&](int64_t batch) {
      Problem many = one;
      many.batch = batch;
      const auto repeat = [&](const Tensor& x) {
        return x.as_strided(x.shape().with(0, batch), x.strides().with(0, 0), x.offset()).clone();
      };
      Tensors results = run_all(many, operands.each(repeat));
      for (Tensor& x : results)
        x = on_cpu(x.as_strided(x.shape().with(0, 1), x.strides(), x.offset() + (batch - 1) * x.strides()[0]).clone());
      return results;
    };
    const Tensors across = of(1), inside = of(60), whole = of(400);
    CAPTURE(static_cast<int>(kind));
    for (size_t i = 0; i < whole.size(); ++i) {
      check_near(across[i], whole[i], 5e-6);
      check_near(inside[i], whole[i], 5e-6);
    }
  }
}

#include "monoid/ops/elementwise.h"

#include <cmath>
#include <functional>
#include <limits>

#include "monoid/core/random.h"
#include "monoid/kernels/cpu/strided.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

using test::check_close;
using test::check_identical;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct UnaryCase {
  const char* name;
  std::function<Tensor(const Tensor&)> op;
  std::function<double(double)> value;
  double low, high;
};

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }
double phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double gelu_tanh_of(double x) { return x * sigmoid_of(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)); }

const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> cases{
      {"exp", [](const Tensor& x) { return exp(x); }, [](double x) { return std::exp(x); }, -80, 80},
      {"log", [](const Tensor& x) { return log(x); }, [](double x) { return std::log(x); }, 1e-3, 100},
      {"log1p", [](const Tensor& x) { return log1p(x); }, [](double x) { return std::log1p(x); }, -0.99, 10},
      {"sigmoid", [](const Tensor& x) { return sigmoid(x); }, sigmoid_of, -80, 80},
      {"softplus", [](const Tensor& x) { return softplus(x); },
       [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }, -80, 80},
      {"log_sigmoid", [](const Tensor& x) { return log_sigmoid(x); },
       [](double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }, -80, 80},
      {"tanh", [](const Tensor& x) { return tanh(x); }, [](double x) { return std::tanh(x); }, -10, 10},
      {"relu", [](const Tensor& x) { return relu(x); }, [](double x) { return std::max(x, 0.0); }, -3, 3},
      {"silu", [](const Tensor& x) { return silu(x); }, [](double x) { return x * sigmoid_of(x); }, -80, 80},
      {"gelu", [](const Tensor& x) { return gelu(x); }, [](double x) { return x * phi(x); }, -12, 12},
      {"gelu tanh", [](const Tensor& x) { return gelu(x, GeluForm::tanh); }, gelu_tanh_of, -5, 12},
      {"sqrt", [](const Tensor& x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, 0, 100},
      {"rsqrt", [](const Tensor& x) { return rsqrt(x); }, [](double x) { return 1 / std::sqrt(x); }, 1e-3, 100},
      {"abs", [](const Tensor& x) { return abs(x); }, [](double x) { return std::abs(x); }, -3, 3},
      {"neg", [](const Tensor& x) { return neg(x); }, [](double x) { return -x; }, -3, 3},
      {"square", [](const Tensor& x) { return square(x); }, [](double x) { return x * x; }, -3, 3},
      {"reciprocal", [](const Tensor& x) { return reciprocal(x); }, [](double x) { return 1 / x; }, 0.1, 10},
      {"sin", [](const Tensor& x) { return sin(x); }, [](double x) { return std::sin(x); }, -100, 100},
      {"cos", [](const Tensor& x) { return cos(x); }, [](double x) { return std::cos(x); }, -100, 100},
      {"erf", [](const Tensor& x) { return erf(x); }, [](double x) { return std::erf(x); }, -5, 5},
      {"pow", [](const Tensor& x) { return pow(x, 1.7); }, [](double x) { return std::pow(x, 1.7); }, 0, 10},
      {"pow 2", [](const Tensor& x) { return pow(x, 2); }, [](double x) { return x * x; }, -3, 3},
      {"clamp", [](const Tensor& x) { return clamp(x, -1, 0.5); }, [](double x) { return std::clamp(x, -1.0, 0.5); },
       -3, 3},
      {"x + 1.5", [](const Tensor& x) { return x + 1.5; }, [](double x) { return x + 1.5; }, -1, 3},
      {"x - 1.5", [](const Tensor& x) { return x - 1.5; }, [](double x) { return x - 1.5; }, -3, 1},
      {"x * 1.5", [](const Tensor& x) { return x * 1.5; }, [](double x) { return x * 1.5; }, -3, 3},
      {"x / 1.5", [](const Tensor& x) { return x / 1.5; }, [](double x) { return x / 1.5; }, -3, 3},
      {"1.5 - x", [](const Tensor& x) { return 1.5 - x; }, [](double x) { return 1.5 - x; }, -3, 1},
      {"1.5 / x", [](const Tensor& x) { return 1.5 / x; }, [](double x) { return 1.5 / x; }, 0.1, 3},
  };
  return cases;
}

// One element through an op, and its gradient for a cotangent of dy.
struct Point {
  double value, gradient;
};
template <class Op>
Point at(Op op, double x, DType dtype = DType::f32, double dy = 1) {
  const Tensor leaf = Tensor::full({19}, x, dtype).set_requires_grad();
  Tape tape;
  const Tensor y = op(leaf);
  tape.backward(y, Tensor::full({19}, dy, dtype));
  const std::vector<double> values = y.template to_vector<double>(), gradients = leaf.grad().to_vector<double>();
  for (size_t i = 1; i < values.size(); ++i) {
    CHECK((values[i] == values[0] || std::isnan(values[0])));
    CHECK((gradients[i] == gradients[0] || std::isnan(gradients[0])));
  }
  return {values[0], gradients[0]};
}

double element(const Tensor& x, const Shape& index) {
  int64_t offset = x.offset();
  for (int axis = 0; axis < x.rank(); ++axis) offset += index[axis] * x.strides()[axis];
  return x.as_strided({}, {}, offset).item();
}

// out[index] = function(a, b) read one element at a time through a hand-made broadcast.
Tensor by_elements(const Tensor& a, const Tensor& b, const std::function<double(double, double)>& function) {
  const Shape shape = broadcast_shapes("test", a.shape(), b.shape());
  const Tensor wide_a = a.as_strided(shape, broadcast_strides(a, shape), a.offset());
  const Tensor wide_b = b.as_strided(shape, broadcast_strides(b, shape), b.offset());
  std::vector<double> values;
  Shape index = shape;
  for (int64_t i = 0; i < shape.elements(); ++i) {
    int64_t rest = i;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      index[axis] = rest % shape[axis];
      rest /= shape[axis];
    }
    values.push_back(function(element(wide_a, index), element(wide_b, index)));
  }
  return Tensor::from(values, shape);
}

}  // namespace

TEST_CASE("unary ops agree with the standard library in both widths", "[elementwise]") {
  Generator generator(1);
  for (const UnaryCase& test : unary_cases()) {
    CAPTURE(test.name);
    const Tensor x = random_uniform({3, 701}, generator, test.low, test.high, DType::f64);
    const Tensor narrow = x.to(DType::f32), wide = narrow.to(DType::f64);
    Tensor expected = Tensor::empty_like(wide);
    for (int64_t i = 0; i < x.elements(); ++i) expected.data<double>()[i] = test.value(wide.data<double>()[i]);
    check_close(test.op(wide), expected, 1e-13, 1e-15);
    check_close(test.op(narrow).to(DType::f64), expected, 1e-6, 2e-7);
  }
}

TEST_CASE("NaN goes through every unary op, and empty tensors stay empty", "[elementwise]") {
  for (const UnaryCase& test : unary_cases()) {
    CAPTURE(test.name);
    for (DType dtype : {DType::f32, DType::f64}) {
      CHECK(std::isnan(test.op(Tensor::full({3}, kNaN, dtype)).to_vector<double>()[1]));
      const Tensor empty = test.op(Tensor::empty({2, 0, 3}, dtype));
      CHECK(empty.shape() == Shape{2, 0, 3});
      CHECK(empty.dtype() == dtype);
    }
  }
}

TEST_CASE("values and gradients at the edges are the limits", "[elementwise]") {
  struct Edge {
    const char* name;
    std::function<Tensor(const Tensor&)> op;
    double x, value, gradient;
  };
  const auto gelu_exact = [](const Tensor& x) { return gelu(x); };
  const auto gelu_approximate = [](const Tensor& x) { return gelu(x, GeluForm::tanh); };
  const auto clamped = [](const Tensor& x) { return clamp(x, -1, 2); };
  using Op = std::function<Tensor(const Tensor&)>;
  const std::vector<Edge> edges{{"softplus", Op(softplus), 1e4, 1e4, 1},
                                {"softplus", Op(softplus), -1e4, 0, 0},
                                {"softplus", Op(softplus), kInfinity, kInfinity, 1},
                                {"softplus", Op(softplus), -kInfinity, 0, 0},
                                {"log_sigmoid", Op(log_sigmoid), -1e4, -1e4, 1},
                                {"log_sigmoid", Op(log_sigmoid), 1e4, 0, 0},
                                {"sigmoid", Op(sigmoid), 1e4, 1, 0},
                                {"sigmoid", Op(sigmoid), -1e4, 0, 0},
                                {"tanh", Op(tanh), kInfinity, 1, 0},
                                {"tanh", Op(tanh), -kInfinity, -1, 0},
                                {"exp", Op(exp), -kInfinity, 0, 0},
                                {"exp", Op(exp), kInfinity, kInfinity, kInfinity},
                                {"log", Op(log), 0, -kInfinity, kInfinity},
                                {"log", Op(log), -1, kNaN, -1},
                                {"log1p", Op(log1p), -1, -kInfinity, kInfinity},
                                {"relu", Op(relu), 0, 0, 0},
                                {"relu", Op(relu), -kInfinity, 0, 0},
                                {"relu", Op(relu), kInfinity, kInfinity, 1},
                                {"abs", Op(abs), 0, 0, 0},
                                {"abs", Op(abs), -2, 2, -1},
                                {"abs", Op(abs), -kInfinity, kInfinity, -1},
                                {"silu", Op(silu), -kInfinity, 0, 0},
                                {"silu", Op(silu), kInfinity, kInfinity, 1},
                                {"silu", Op(silu), -1e4, 0, 0},
                                {"gelu", gelu_exact, -kInfinity, 0, 0},
                                {"gelu", gelu_exact, kInfinity, kInfinity, 1},
                                {"gelu", gelu_exact, -1e4, 0, 0},
                                {"gelu", gelu_exact, 0, 0, 0.5},
                                {"gelu tanh", gelu_approximate, -kInfinity, 0, 0},
                                {"gelu tanh", gelu_approximate, kInfinity, kInfinity, 1},
                                {"gelu tanh", gelu_approximate, -1e20, 0, 0},
                                {"gelu tanh", gelu_approximate, 1e20, 1e20, 1},
                                {"sqrt", Op(sqrt), 0, 0, kInfinity},
                                {"rsqrt", Op(rsqrt), 0, kInfinity, -kInfinity},
                                {"sqrt", Op(sqrt), -1, kNaN, kNaN},
                                {"reciprocal", Op(reciprocal), 0, kInfinity, -kInfinity},
                                {"erf", Op(erf), kInfinity, 1, 0},
                                {"erf", Op(erf), -kInfinity, -1, 0},
                                {"clamp", clamped, -1, -1, 1},
                                {"clamp", clamped, 2, 2, 1},
                                {"clamp", clamped, 2.5, 2, 0},
                                {"clamp", clamped, -kInfinity, -1, 0},
                                {"clamp", clamped, kNaN, kNaN, 0},
                                {"pow 0", [](const Tensor& x) { return pow(x, 0); }, 0, 1, 0},
                                {"pow 1", [](const Tensor& x) { return pow(x, 1); }, 0, 0, 1},
                                {"pow -2", [](const Tensor& x) { return pow(x, -2); }, 0, kInfinity, -kInfinity},
                                {"1 / x", [](const Tensor& x) { return 1.0 / x; }, kInfinity, 0, 0}};
  const auto same = [](double a, double b, DType dtype) {
    return std::isnan(b) ? std::isnan(a) : a == (dtype == DType::f32 ? static_cast<float>(b) : b);
  };
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Edge& edge : edges) {
      const Point point = at(edge.op, edge.x, dtype);
      CAPTURE(edge.name, dtype, edge.x, point.value, edge.value, point.gradient, edge.gradient);
      CHECK(same(point.value, edge.value, dtype));
      CHECK(same(point.gradient, edge.gradient, dtype));
    }
  }
  CHECK(at(Op(relu), -1, DType::f32, kInfinity).gradient == 0);
}

TEST_CASE("f32 gelu is relatively accurate far into its tail, value and gradient", "[elementwise]") {
  for (GeluForm form : {GeluForm::exact, GeluForm::tanh}) {
    // The tail of the tanh form is exp(-x^3): its f32 argument alone rounds to more than 1e-6 beyond -4.
    const double low = form == GeluForm::exact ? -12 : -4;
    Tensor x = Tensor::empty({4001});
    for (int64_t i = 0; i < x.elements(); ++i) x.data<float>()[i] = static_cast<float>(low + 0.005 * i);
    Tensor wide = x.to(DType::f64);
    x.set_requires_grad();
    wide.set_requires_grad();
    Tape tape;
    const Tensor narrow_y = gelu(x, form), wide_y = gelu(wide, form);
    tape.backward({narrow_y, wide_y}, {Tensor::ones({4001}), Tensor::ones({4001}, DType::f64)});
    check_close(narrow_y.to(DType::f64), wide_y.detach(), 2e-6);
    // The gradient crosses zero near -0.75; away from there it has the tail's relative accuracy.
    check_close(x.grad().to(DType::f64), wide.grad(), 3e-6, 2e-7);
  }
}

TEST_CASE("two-operand ops broadcast and read any strides", "[elementwise]") {
  Generator generator(2);
  const auto normal = [&](const Shape& shape) { return random_normal(shape, generator, 0, 1, DType::f64); };
  const auto transposed = [](const Tensor& x) { return x.as_strided({x.size(1), x.size(0)}, {1, x.size(1)}, 0); };
  const auto expanded = [&](int64_t rows, int64_t columns) {
    return normal({columns}).as_strided({rows, columns}, {0, 1}, 0);
  };
  const auto every_other = [&](int64_t count) { return normal({2 * count}).as_strided({count}, {2}, 1); };
  const auto backwards = [&](int64_t count) { return normal({count}).as_strided({count}, {-1}, count - 1); };
  // Rows shorter and longer than a block, packed and in place.
  const std::vector<std::pair<Tensor, Tensor>> pairs{
      {normal({3, 1030}), normal({1030})},
      {normal({5, 130}), normal({130})},
      {normal({400, 3}), normal({3})},
      {normal({7, 1}), normal({7, 600})},
      {normal({2, 1, 5}), normal({4, 1})},
      {normal({}), normal({1100})},
      {transposed(normal({600, 7})), normal({7, 600})},
      {transposed(normal({7, 600})), transposed(normal({7, 600}))},
      {expanded(9, 200), normal({9, 200})},
      {every_other(1300), backwards(1300)},
      {normal({1}), normal({1})},
      {normal({0, 3}), normal({3})},
      {normal({2, 1, 2, 1, 2, 1, 2, 1}), normal({1, 2, 1, 2, 1, 2, 1, 300})},
      {normal({40, 50, 20}), normal({40, 1, 20})}};
  for (const auto& [a, b] : pairs) {
    CAPTURE(describe(a), a.strides(), describe(b), b.strides());
    check_identical(a - b, by_elements(a, b, [](double x, double y) { return x - y; }));
    check_identical(b - a, by_elements(b, a, [](double x, double y) { return x - y; }));
    check_identical(less(a, b).to(DType::f64), by_elements(a, b, [](double x, double y) { return x < y; }));
    check_identical(where(greater(a, b), a, b), maximum(a, b));
    check_identical(a.to(DType::f32) / b.to(DType::f32), (a.to(DType::f32).clone() / b.to(DType::f32).clone()));
  }
}

TEST_CASE("division, maximum and minimum treat infinity, zero and NaN as IEEE and PyTorch do", "[elementwise]") {
  for (DType dtype : {DType::f32, DType::f64}) {
    const auto run = [&](Tensor (*op)(const Tensor&, const Tensor&), double a, double b) {
      return op(Tensor::full({5}, a, dtype), Tensor::full({5}, b, dtype)).to_vector<double>()[3];
    };
    CHECK(run(div, 1, 0) == kInfinity);
    CHECK(run(div, -1, 0) == -kInfinity);
    CHECK(std::isnan(run(div, 0, 0)));
    CHECK(run(div, 1, kInfinity) == 0);
    for (auto op : {maximum, minimum}) {
      CHECK(std::isnan(run(op, kNaN, 1)));
      CHECK(std::isnan(run(op, 1, kNaN)));
    }
    CHECK(run(maximum, -kInfinity, 3) == 3);
    CHECK(run(minimum, kInfinity, 3) == 3);
    CHECK(run(equal, kNaN, kNaN) == 0);
    CHECK(run(less, kNaN, 1) == 0);
    CHECK(run(greater, kNaN, 1) == 0);
  }
}

TEST_CASE("at a tie maximum and minimum give half of the gradient to each side", "[elementwise]") {
  for (auto op : {maximum, minimum}) {
    const Tensor a = Tensor::from<float>({1, 2, 3}, {3}).set_requires_grad();
    const Tensor b = Tensor::from<float>({3, 2, 1}, {3}).set_requires_grad();
    Tape tape;
    tape.backward(op(a, b), Tensor::full({3}, 4));
    const float first = op == maximum ? 0 : 4;
    check_identical(a.grad(), Tensor::from<float>({first, 2, 4 - first}, {3}));
    check_identical(b.grad(), Tensor::from<float>({4 - first, 2, first}, {3}));
  }
}

TEST_CASE("gradients of broadcast operands are summed, those of a shared operand added up", "[elementwise]") {
  const Tensor x = Tensor::from<double>({1, 2, 3, 4, 5, 6}, {2, 3}).set_requires_grad();
  const Tensor row = Tensor::from<double>({1, 10, 100}, {3}).set_requires_grad();
  const Tensor dy = Tensor::from<double>({1, 2, 3, 4, 5, 6}, {2, 3});
  {
    Tape tape;
    tape.backward(x * row - row, dy);
  }
  check_identical(x.grad(), Tensor::from<double>({1, 20, 300, 4, 50, 600}, {2, 3}));
  check_identical(row.grad(), Tensor::from<double>({1 * 0 + 4 * 3, 2 * 1 + 5 * 4, 3 * 2 + 6 * 5}, {3}));
  Tensor y = Tensor::full({2}, 3, DType::f64).set_requires_grad();
  Tape tape;
  tape.backward(y * y + y, Tensor::ones({2}, DType::f64));
  check_identical(y.grad(), Tensor::full({2}, 7, DType::f64));
}

TEST_CASE("where routes the gradient and lets nothing through from the other side", "[elementwise]") {
  const Tensor condition = less(Tensor::from<int64_t>({0, 9, 1}, {3}), Tensor::full({}, 5, DType::i64));
  const Tensor a = Tensor::full({3}, 1).set_requires_grad(), b = Tensor::full({}, 2).set_requires_grad();
  Tape tape;
  const Tensor out = where(condition, a, b);
  check_identical(out.detach(), Tensor::from<float>({1, 2, 1}, {3}));
  tape.backward(out, Tensor::from<float>({5, INFINITY, 7}, {3}));
  check_identical(a.grad(), Tensor::from<float>({5, 0, 7}, {3}));
  CHECK(b.grad().item() == INFINITY);
}

TEST_CASE("cast keeps the handle where nothing changes and brings gradients back in their own dtype", "[elementwise]") {
  const Tensor x = Tensor::from<float>({1.5f, -2.75f, 3.0f}, {3}).set_requires_grad();
  CHECK(cast(x, DType::f32).raw() == x.raw());
  check_identical(cast(x, DType::i64), Tensor::from<int64_t>({1, -2, 3}, {3}));
  Tape tape;
  CHECK_FALSE(cast(x, DType::i64).requires_grad());
  const Tensor half = cast(x, DType::bf16);
  CHECK(half.dtype() == DType::bf16);
  tape.backward(cast(half, DType::f64), Tensor::full({3}, 2, DType::f64));
  check_identical(x.grad(), Tensor::full({3}, 2));
}

TEST_CASE("comparisons take integers and bools", "[elementwise]") {
  const Tensor a = Tensor::from<int64_t>({1, int64_t{1} << 60, 3}, {3});
  const Tensor b = Tensor::from<int64_t>({1, (int64_t{1} << 60) + 1, 2}, {3});
  CHECK(equal(a, b).to_vector<bool>() == std::vector<bool>{true, false, false});
  CHECK(less(a, b).to_vector<bool>() == std::vector<bool>{false, true, false});
  CHECK(greater(a, b).to_vector<bool>() == std::vector<bool>{false, false, true});
  CHECK(equal(less(a, b), greater(a, b)).to_vector<bool>() == std::vector<bool>{true, false, false});
}

TEST_CASE("elementwise errors name the op and what it saw", "[elementwise]") {
  const Tensor x = Tensor::ones({2, 3}), wide = Tensor::ones({2, 3}, DType::f64), half = Tensor::ones({2}, DType::bf16);
  CHECK_THROWS_WITH(add(x, wide), ContainsSubstring("add: ") && ContainsSubstring("f32[2, 3]") &&
                                      ContainsSubstring("f64[2, 3]") && ContainsSubstring("cast()"));
  CHECK_THROWS_WITH(mul(x, Tensor::ones({4})), ContainsSubstring("mul: ") && ContainsSubstring("broadcast"));
  CHECK_THROWS_WITH(div(x, {}), ContainsSubstring("div: b is undefined"));
  CHECK_THROWS_WITH(exp(half),
                    ContainsSubstring("exp: ") && ContainsSubstring("bf16[2]") && ContainsSubstring("cast()"));
  CHECK_THROWS_WITH(add(half, half), ContainsSubstring("add: ") && ContainsSubstring("bf16"));
  CHECK_THROWS_WITH(half + 1.0, ContainsSubstring("add: "));
  CHECK_THROWS_WITH(gelu(Tensor::ones({2}, DType::i64)), ContainsSubstring("gelu: ") && ContainsSubstring("i64[2]"));
  CHECK_THROWS_WITH(less(half, half), ContainsSubstring("bf16"));
  CHECK_THROWS_WITH(where(x, x, x), ContainsSubstring("where: condition is f32[2, 3], wanted bool"));
  CHECK_THROWS_WITH(clamp(x, 2, 1), ContainsSubstring("clamp: low 2 is above high 1"));
}

}  // namespace monoid

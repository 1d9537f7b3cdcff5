#include "monoid/ops/elementwise.h"

#include "monoid/kernels/elementwise.h"
#include "monoid/ops/reduce.h"

namespace monoid {
namespace {

void check_computable(const char* op, const char* argument, const Tensor& x) {
  check_defined(op, argument, x);
  check(is_floating(x.dtype()) && !(x.dtype() == DType::bf16 && x.device().is_cpu()), op, ": ", argument, " is ",
        describe(x), ", wanted f32 or f64; cast() it first");
}

Tensor unary(const char* op, UnaryFunction function, const Tensor& x, Scalars scalars = {}) {
  check_computable(op, "x", x);
  Tensor y = Tensor::empty_like(x);
  kernels::unary(function, x, scalars, y);
  const Saves saves = saved_by(function);
  const Tensor saved = saves == Saves::input ? x : saves == Saves::output ? y : Tensor();
  Tape::record(op, {x}, {y}, [=](const Tensors& dy) -> Tensors {
    Tensor dx = Tensor::empty_like(dy[0]);
    kernels::unary_gradient(function, saved.defined() ? saved : dy[0], dy[0], scalars, dx);
    return {dx};
  });
  return y;
}

// A gradient that is dy itself: nothing to compute or to copy.
Tensor shifted(const char* op, const Tensor& x, double amount) {
  check_computable(op, "x", x);
  Tensor y = Tensor::empty_like(x);
  kernels::unary(UnaryFunction::shift, x, {amount}, y);
  Tape::record(op, {x}, {y}, [](const Tensors& dy) -> Tensors { return {dy[0]}; });
  return y;
}

// Checks the operands and returns the shape they broadcast to.
Shape common_shape(const char* op, const Tensor& a, const Tensor& b) {
  check_defined(op, "a", a);
  check_defined(op, "b", b);
  check_same_device_and_dtype(op, a, b);
  return broadcast_shapes(op, a.shape(), b.shape());
}

Tensor apply(const char* op, BinaryFunction function, const Tensor& a, const Tensor& b) {
  const Shape shape = common_shape(op, a, b);
  check_computable(op, "a", a);
  Tensor out = Tensor::empty(shape, a.dtype(), a.device());
  kernels::binary(function, a, b, out);
  return out;
}

// a + b and a - b: the gradients are dy and -dy, shared with whoever else holds it.
Tensor sum_or_difference(const char* op, BinaryFunction function, const Tensor& a, const Tensor& b) {
  Tensor out = apply(op, function, a, b);
  const Shape a_shape = a.shape(), b_shape = b.shape();
  const bool a_wanted = a.requires_grad(), b_wanted = b.requires_grad(), negative = function == BinaryFunction::sub;
  Tape::record(op, {a, b}, {out}, [=](const Tensors& dy) -> Tensors {
    Tensor da = a_wanted ? sum_to(dy[0], a_shape) : Tensor();
    Tensor db = b_wanted ? sum_to(dy[0], b_shape) : Tensor();
    if (b_wanted && negative) db = neg(db);
    return {da, db};
  });
  return out;
}

Tensor product_like(const char* op, BinaryFunction function, const Tensor& a, const Tensor& b) {
  Tensor out = apply(op, function, a, b);
  const Shape a_shape = a.shape(), b_shape = b.shape();
  const bool a_wanted = a.requires_grad(), b_wanted = b.requires_grad();
  // The gradient of one factor reads only the other: the tape then keeps no more, and the other stands in for both.
  const bool is_mul = function == BinaryFunction::mul;
  const Tensor kept_a = is_mul && !b_wanted ? b : a, kept_b = is_mul && !a_wanted ? a : b;
  Tape::record(op, {a, b}, {out}, [=](const Tensors& dy) -> Tensors {
    Tensor da = a_wanted ? Tensor::empty_like(dy[0]) : Tensor();
    Tensor db = b_wanted ? Tensor::empty_like(dy[0]) : Tensor();
    kernels::binary_gradient(function, kept_a, kept_b, dy[0], da, db);
    return {a_wanted ? sum_to(da, a_shape) : da, b_wanted ? sum_to(db, b_shape) : db};
  });
  return out;
}

Tensor comparison(const char* op, Comparison function, const Tensor& a, const Tensor& b) {
  Tensor out = Tensor::empty(common_shape(op, a, b), DType::boolean, a.device());
  kernels::compare(function, a, b, out);
  return out;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return sum_or_difference("add", BinaryFunction::add, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return sum_or_difference("sub", BinaryFunction::sub, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return product_like("mul", BinaryFunction::mul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return product_like("div", BinaryFunction::div, a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return product_like("maximum", BinaryFunction::maximum, a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return product_like("minimum", BinaryFunction::minimum, a, b); }

Tensor silu_gated(const Tensor& a, const Tensor& b) {
  return product_like("silu_gated", BinaryFunction::silu_gated, a, b);
}

Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator+(const Tensor& a, double b) { return shifted("add", a, b); }
Tensor operator-(const Tensor& a, double b) { return shifted("sub", a, -b); }
Tensor operator*(const Tensor& a, double b) { return unary("mul", UnaryFunction::scale, a, {b}); }
Tensor operator/(const Tensor& a, double b) { return unary("div", UnaryFunction::divide, a, {b}); }
Tensor operator+(double a, const Tensor& b) { return b + a; }
Tensor operator-(double a, const Tensor& b) { return unary("sub", UnaryFunction::subtract_from, b, {a}); }
Tensor operator*(double a, const Tensor& b) { return b * a; }
Tensor operator/(double a, const Tensor& b) { return unary("div", UnaryFunction::divide_into, b, {a}); }
Tensor operator-(const Tensor& x) { return neg(x); }

Tensor exp(const Tensor& x) { return unary("exp", UnaryFunction::exp, x); }
Tensor log(const Tensor& x) { return unary("log", UnaryFunction::log, x); }
Tensor log1p(const Tensor& x) { return unary("log1p", UnaryFunction::log1p, x); }
Tensor sigmoid(const Tensor& x) { return unary("sigmoid", UnaryFunction::sigmoid, x); }
Tensor softplus(const Tensor& x) { return unary("softplus", UnaryFunction::softplus, x); }
Tensor log_sigmoid(const Tensor& x) { return unary("log_sigmoid", UnaryFunction::log_sigmoid, x); }
Tensor tanh(const Tensor& x) { return unary("tanh", UnaryFunction::tanh, x); }
Tensor relu(const Tensor& x) { return unary("relu", UnaryFunction::relu, x); }
Tensor silu(const Tensor& x) { return unary("silu", UnaryFunction::silu, x); }
Tensor sqrt(const Tensor& x) { return unary("sqrt", UnaryFunction::sqrt, x); }
Tensor rsqrt(const Tensor& x) { return unary("rsqrt", UnaryFunction::rsqrt, x); }
Tensor abs(const Tensor& x) { return unary("abs", UnaryFunction::abs, x); }
Tensor neg(const Tensor& x) { return unary("neg", UnaryFunction::neg, x); }
Tensor square(const Tensor& x) { return unary("square", UnaryFunction::square, x); }
Tensor reciprocal(const Tensor& x) { return unary("reciprocal", UnaryFunction::reciprocal, x); }
Tensor sin(const Tensor& x) { return unary("sin", UnaryFunction::sin, x); }
Tensor cos(const Tensor& x) { return unary("cos", UnaryFunction::cos, x); }
Tensor erf(const Tensor& x) { return unary("erf", UnaryFunction::erf, x); }

Tensor gelu(const Tensor& x, GeluForm form) {
  return unary("gelu", form == GeluForm::exact ? UnaryFunction::gelu : UnaryFunction::gelu_tanh, x);
}

Tensor pow(const Tensor& x, double exponent) {
  if (exponent == 2) return square(x);
  return unary("pow", UnaryFunction::pow, x, {exponent});
}

Tensor clamp(const Tensor& x, double low, double high) {
  check(low <= high, "clamp: low ", low, " is above high ", high);
  return unary("clamp", UnaryFunction::clamp, x, {low, high});
}

Tensor cast(const Tensor& x, DType dtype) {
  check_defined("cast", "x", x);
  const DType original = x.dtype();
  if (original == dtype) return x;
  Tensor y = x.to(dtype);
  Tape::record("cast", {x}, {y}, [original](const Tensors& dy) -> Tensors { return {dy[0].to(original)}; });
  return y;
}

Tensor equal(const Tensor& a, const Tensor& b) { return comparison("equal", Comparison::equal, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return comparison("less", Comparison::less, a, b); }
Tensor greater(const Tensor& a, const Tensor& b) { return comparison("greater", Comparison::greater, a, b); }

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  check_defined("where", "condition", condition);
  const Shape operands = common_shape("where", a, b);
  check(condition.dtype() == DType::boolean, "where: condition is ", describe(condition),
        ", wanted bool; compare with less(), greater() or equal()");
  check(condition.device() == a.device(), "where: condition ", describe(condition), " and operand ", describe(a),
        " are on two devices; move one with to(device)");
  Tensor out = Tensor::empty(broadcast_shapes("where", condition.shape(), operands), a.dtype(), a.device());
  kernels::where(condition, a, b, out);
  const Shape a_shape = a.shape(), b_shape = b.shape();
  const bool a_wanted = a.requires_grad(), b_wanted = b.requires_grad();
  Tape::record("where", {a, b}, {out}, [=](const Tensors& dy) -> Tensors {
    const Tensor zero = Tensor::scalar(0, dy[0].dtype(), dy[0].device());
    const auto routed = [&](const Tensor& first, const Tensor& second, const Shape& shape) {
      return sum_to(where(condition, first, second), shape);
    };
    return {a_wanted ? routed(dy[0], zero, a_shape) : Tensor(), b_wanted ? routed(zero, dy[0], b_shape) : Tensor()};
  });
  return out;
}

}  // namespace monoid

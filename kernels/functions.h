#pragma once

#include <cstdint>

#include "monoid/core/error.h"
#include "monoid/kernels/host_device.h"

namespace monoid {

// The table of elementwise functions: each a struct with its value and its gradient side by side, over a policy Math
// that says what exp, tanh, ... are (kernels/cpu/vector_math.h on the CPU, a backend's own elsewhere).

enum class UnaryFunction : uint8_t {
  // clang-format off
  exp, log, log1p, sigmoid, softplus, log_sigmoid, tanh, relu, silu, gelu, gelu_tanh, sqrt, rsqrt, abs, neg, square,
  reciprocal, sin, cos, erf,
  // clang-format on
  pow,            // x^first
  clamp,          // to [first, second]
  shift,          // x + first
  scale,          // x * first
  divide,         // x / first
  subtract_from,  // first - x
  divide_into,    // first / x
};

enum class BinaryFunction : uint8_t { add, sub, mul, div, maximum, minimum, silu_gated };
enum class Comparison : uint8_t { equal, less, greater };

/// The numbers of a unary function that has any.
struct Scalars {
  double first = 0;
  double second = 0;
};

/// What a unary gradient is computed from besides dy.
enum class Saves : uint8_t { nothing, input, output };

namespace functions {

// value(math, x, p) and gradient(math, dy, saved, p): `math` the policy object, p the Scalars in the computing type.

/// A constant in the type of x: a double would drag the computation along.
MONOID_HOST_DEVICE constexpr auto as(auto x, double constant) { return static_cast<decltype(x)>(constant); }

// Where a tail times x has a limit of 0, infinity times 0 would be NaN: x is kept below this.
inline constexpr double kBound = 3e38;

struct FromNothing {
  static constexpr Saves kSaves = Saves::nothing;
};
struct FromInput {
  static constexpr Saves kSaves = Saves::input;
};
struct FromOutput {
  static constexpr Saves kSaves = Saves::output;
};

struct Exp : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.exp(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return dy * y; }
};

struct Log : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.log(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto x, auto) { return dy / x; }
};

struct Log1p : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.log1p(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto x, auto) { return dy / (1 + x); }
};

struct Sigmoid : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.sigmoid(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return dy * (y * (1 - y)); }
};

struct Softplus : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.softplus(x); }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) { return dy * math.sigmoid(x); }
};

struct LogSigmoid : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return -math.softplus(-x); }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) { return dy * math.sigmoid(-x); }
};

struct Tanh : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.tanh(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return dy * ((1 - y) * (1 + y)); }
};

struct Relu : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto) { return x < 0 ? 0 : x; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return y <= 0 ? 0 : dy; }
};

struct Silu : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) {
    return math.at_least(x, as(x, -kBound)) * math.sigmoid(x);
  }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) {
    const auto gate = math.sigmoid(x);
    return dy * (gate * (1 + math.within(x, as(x, kBound)) * (1 - gate)));
  }
};

// x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, "Gaussian error linear units", 2016).
struct Gelu : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) {
    return math.at_least(x, as(x, -kBound)) * math.normal_cdf(x, math.gaussian(x));
  }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) {
    const auto density_at_0 = as(x, 0.398942280401432677939946);  // 1 / sqrt(2 pi)
    const auto bell = math.gaussian(x);
    return dy * (math.normal_cdf(x, bell) + math.within(x, as(x, kBound)) * (bell * density_at_0));
  }
};

// x (1 + tanh u) / 2 = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3): the second form keeps small results.
struct GeluTanh : FromInput {
  static constexpr double kTwiceSlope = 1.59576912160573071175978;  // 2 sqrt(2 / pi)
  static constexpr double kCubic = 0.044715;

  MONOID_HOST_DEVICE static auto gate(auto math, auto x) {
    return math.sigmoid(as(x, kTwiceSlope) * (x + as(x, kCubic) * (x * x * x)));
  }
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) {
    return math.at_least(x, as(x, -kBound)) * gate(math, x);
  }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) {
    const auto g = gate(math, x);
    const auto within = math.within(x, as(x, 30));  // g (1 - g) is 0 beyond
    const auto slope = as(x, kTwiceSlope) * (1 + as(x, 3 * kCubic) * within * within);
    return dy * (g + within * (g * (1 - g)) * slope);
  }
};

struct Sqrt : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.sqrt(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return dy / (2 * y); }
};

struct Rsqrt : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return 1 / math.sqrt(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return as(dy, -0.5) * dy * (y * y * y); }
};

// The derivative at the kink is 0, as in PyTorch.
struct Abs : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.abs(x); }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto x, auto) {
    const auto below = x < 0 ? -dy : 0;
    return x > 0 ? dy : below;
  }
};

struct Neg : FromNothing {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto) { return -x; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto, auto) { return -dy; }
};

struct Square : FromInput {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto) { return x * x; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto x, auto) { return 2 * x * dy; }
};

struct Reciprocal : FromOutput {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto) { return 1 / x; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto y, auto) { return -dy * (y * y); }
};

struct Sin : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.sin(x); }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) { return dy * math.cos(x); }
};

struct Cos : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.cos(x); }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) { return -dy * math.sin(x); }
};

struct Erf : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto) { return math.erf(x); }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto) {
    const auto slope_at_0 = as(x, 1.12837916709551257389616);  // 2 / sqrt(pi)
    return dy * (slope_at_0 * math.exp(-x * x));
  }
};

struct Pow : FromInput {
  MONOID_HOST_DEVICE static auto value(auto math, auto x, auto p) { return math.pow(x, p.first); }
  MONOID_HOST_DEVICE static auto gradient(auto math, auto dy, auto x, auto p) {
    return p.first == 0 ? 0 : dy * (p.first * math.pow(x, p.first - 1));
  }
};

// The gradient passes on the bounds themselves, as in PyTorch.
struct Clamp : FromInput {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto p) {
    const auto above = x < p.first ? p.first : x;
    return above > p.second ? p.second : above;
  }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto x, auto p) {
    const auto below_high = x <= p.second ? dy : 0;
    return x >= p.first ? below_high : 0;
  }
};

struct Shift : FromNothing {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto p) { return x + p.first; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto, auto) { return dy; }
};

struct Scale : FromNothing {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto p) { return x * p.first; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto, auto p) { return dy * p.first; }
};

struct Divide : FromNothing {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto p) { return x / p.first; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto, auto p) { return dy / p.first; }
};

struct SubtractFrom : FromNothing {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto p) { return p.first - x; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto, auto) { return -dy; }
};

struct DivideInto : FromInput {
  MONOID_HOST_DEVICE static auto value(auto, auto x, auto p) { return p.first / x; }
  MONOID_HOST_DEVICE static auto gradient(auto, auto dy, auto x, auto p) { return -dy * (p.first / x) / x; }
};

// Two operands: value(math, a, b), and the gradient of each. At a tie maximum and minimum share it, as in PyTorch.
struct Add {
  MONOID_HOST_DEVICE static auto value(auto, auto a, auto b) { return a + b; }
  MONOID_HOST_DEVICE static auto gradient_a(auto, auto dy, auto, auto) { return dy; }
  MONOID_HOST_DEVICE static auto gradient_b(auto, auto dy, auto, auto) { return dy; }
};

struct Sub {
  MONOID_HOST_DEVICE static auto value(auto, auto a, auto b) { return a - b; }
  MONOID_HOST_DEVICE static auto gradient_a(auto, auto dy, auto, auto) { return dy; }
  MONOID_HOST_DEVICE static auto gradient_b(auto, auto dy, auto, auto) { return -dy; }
};

struct Mul {
  MONOID_HOST_DEVICE static auto value(auto, auto a, auto b) { return a * b; }
  MONOID_HOST_DEVICE static auto gradient_a(auto, auto dy, auto, auto b) { return dy * b; }
  MONOID_HOST_DEVICE static auto gradient_b(auto, auto dy, auto a, auto) { return dy * a; }
};

struct Div {
  MONOID_HOST_DEVICE static auto value(auto, auto a, auto b) { return a / b; }
  MONOID_HOST_DEVICE static auto gradient_a(auto, auto dy, auto, auto b) { return dy / b; }
  MONOID_HOST_DEVICE static auto gradient_b(auto, auto dy, auto a, auto b) { return -dy * ((a / b) / b); }
};

struct Maximum {
  MONOID_HOST_DEVICE static auto value(auto, auto a, auto b) { return a != a || a > b ? a : b; }
  MONOID_HOST_DEVICE static auto gradient_a(auto, auto dy, auto a, auto b) { return share(dy, b > a, a == b); }
  MONOID_HOST_DEVICE static auto gradient_b(auto, auto dy, auto a, auto b) { return share(dy, a > b, a == b); }
  MONOID_HOST_DEVICE static auto share(auto dy, bool loses, bool tie) {
    const auto all_or_half = tie ? dy / 2 : dy;
    return loses ? 0 : all_or_half;
  }
};

struct Minimum {
  MONOID_HOST_DEVICE static auto value(auto, auto a, auto b) { return a != a || a < b ? a : b; }
  MONOID_HOST_DEVICE static auto gradient_a(auto, auto dy, auto a, auto b) { return Maximum::share(dy, b < a, a == b); }
  MONOID_HOST_DEVICE static auto gradient_b(auto, auto dy, auto a, auto b) { return Maximum::share(dy, a < b, a == b); }
};

// a silu(b): a gated by b.
struct SiluGated {
  MONOID_HOST_DEVICE static auto value(auto math, auto a, auto b) { return a * Silu::value(math, b, 0); }
  MONOID_HOST_DEVICE static auto gradient_a(auto math, auto dy, auto, auto b) { return dy * Silu::value(math, b, 0); }
  MONOID_HOST_DEVICE static auto gradient_b(auto math, auto dy, auto a, auto b) {
    return Silu::gradient(math, dy * a, b, 0);
  }
};

struct Equal {
  MONOID_HOST_DEVICE static bool value(auto a, auto b) { return a == b; }
};

struct Less {
  MONOID_HOST_DEVICE static bool value(auto a, auto b) { return a < b; }
};

struct Greater {
  MONOID_HOST_DEVICE static bool value(auto a, auto b) { return a > b; }
};

}  // namespace functions

/// Calls body.template operator()<functions::X>() for the struct behind an enumerator.
template <class Body>
decltype(auto) dispatch_function(UnaryFunction function, Body&& body) {
  switch (function) {
    case UnaryFunction::exp:
      return body.template operator()<functions::Exp>();
    case UnaryFunction::log:
      return body.template operator()<functions::Log>();
    case UnaryFunction::log1p:
      return body.template operator()<functions::Log1p>();
    case UnaryFunction::sigmoid:
      return body.template operator()<functions::Sigmoid>();
    case UnaryFunction::softplus:
      return body.template operator()<functions::Softplus>();
    case UnaryFunction::log_sigmoid:
      return body.template operator()<functions::LogSigmoid>();
    case UnaryFunction::tanh:
      return body.template operator()<functions::Tanh>();
    case UnaryFunction::relu:
      return body.template operator()<functions::Relu>();
    case UnaryFunction::silu:
      return body.template operator()<functions::Silu>();
    case UnaryFunction::gelu:
      return body.template operator()<functions::Gelu>();
    case UnaryFunction::gelu_tanh:
      return body.template operator()<functions::GeluTanh>();
    case UnaryFunction::sqrt:
      return body.template operator()<functions::Sqrt>();
    case UnaryFunction::rsqrt:
      return body.template operator()<functions::Rsqrt>();
    case UnaryFunction::abs:
      return body.template operator()<functions::Abs>();
    case UnaryFunction::neg:
      return body.template operator()<functions::Neg>();
    case UnaryFunction::square:
      return body.template operator()<functions::Square>();
    case UnaryFunction::reciprocal:
      return body.template operator()<functions::Reciprocal>();
    case UnaryFunction::sin:
      return body.template operator()<functions::Sin>();
    case UnaryFunction::cos:
      return body.template operator()<functions::Cos>();
    case UnaryFunction::erf:
      return body.template operator()<functions::Erf>();
    case UnaryFunction::pow:
      return body.template operator()<functions::Pow>();
    case UnaryFunction::clamp:
      return body.template operator()<functions::Clamp>();
    case UnaryFunction::shift:
      return body.template operator()<functions::Shift>();
    case UnaryFunction::scale:
      return body.template operator()<functions::Scale>();
    case UnaryFunction::divide:
      return body.template operator()<functions::Divide>();
    case UnaryFunction::subtract_from:
      return body.template operator()<functions::SubtractFrom>();
    case UnaryFunction::divide_into:
      return body.template operator()<functions::DivideInto>();
  }
  fail("elementwise: corrupt function ", static_cast<int>(function));
}

template <class Body>
decltype(auto) dispatch_function(BinaryFunction function, Body&& body) {
  switch (function) {
    case BinaryFunction::add:
      return body.template operator()<functions::Add>();
    case BinaryFunction::sub:
      return body.template operator()<functions::Sub>();
    case BinaryFunction::mul:
      return body.template operator()<functions::Mul>();
    case BinaryFunction::div:
      return body.template operator()<functions::Div>();
    case BinaryFunction::maximum:
      return body.template operator()<functions::Maximum>();
    case BinaryFunction::minimum:
      return body.template operator()<functions::Minimum>();
    case BinaryFunction::silu_gated:
      return body.template operator()<functions::SiluGated>();
  }
  fail("elementwise: corrupt function ", static_cast<int>(function));
}

template <class Body>
decltype(auto) dispatch_function(Comparison comparison, Body&& body) {
  switch (comparison) {
    case Comparison::equal:
      return body.template operator()<functions::Equal>();
    case Comparison::less:
      return body.template operator()<functions::Less>();
    case Comparison::greater:
      return body.template operator()<functions::Greater>();
  }
  fail("elementwise: corrupt comparison ", static_cast<int>(comparison));
}

inline Saves saved_by(UnaryFunction function) {
  return dispatch_function(function, [&]<class Function>() { return Function::kSaves; });
}

}  // namespace monoid

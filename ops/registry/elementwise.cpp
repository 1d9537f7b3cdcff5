#include "monoid/ops/elementwise.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

using Samples = std::vector<OpSample>;
using UnaryOp = std::function<Tensor(const Tensor&)>;
using BinaryOp = std::function<Tensor(const Tensor&, const Tensor&)>;

// Where the arguments of a function are drawn from: everywhere, at a distance from a kink at 0, or above it.
enum class Domain { all, not_zero, positive };

Tensor draw(SampleMaker& make, Domain domain, const Shape& shape) {
  switch (domain) {
    case Domain::all:
      return make.normal(shape, 2);
    case Domain::not_zero:
      return make.away_from_zero(shape);
    case Domain::positive:
      return make.uniform(shape, 0.3, 4);
  }
  return {};
}

OpEntry entry(const char* name, UnaryOp op, Domain domain = Domain::all, Samples (*more)(SampleMaker&) = nullptr) {
  return {name, [=](SampleMaker& make) {
            const auto run = [op](const Tensors& in) -> Tensors { return {op(in[0])}; };
            Samples samples{
                {"3 x 7", {draw(make, domain, {3, 7})}, run},
                {"transposed 4 x 5",
                 {draw(make, domain, {4, 5})},
                 [op](const Tensors& in) -> Tensors { return {op(transpose(in[0], 0, 1))}; }},
                {"empty", {draw(make, domain, {0, 3})}, run},
            };
            if (more) {
              for (OpSample& sample : more(make)) samples.push_back(std::move(sample));
            }
            return samples;
          }};
}

OpEntry entry(const char* name, BinaryOp op, Domain domain = Domain::all, Samples (*more)(SampleMaker&) = nullptr) {
  return {name, [=](SampleMaker& make) {
            const auto run = [op](const Tensors& in) -> Tensors { return {op(in[0], in[1])}; };
            const auto sample = [&](const char* label, const Shape& a, const Shape& b) -> OpSample {
              return {label, {make.normal(a), draw(make, domain, b)}, run};
            };
            Samples samples{
                sample("3 x 7", {3, 7}, {3, 7}),
                sample("2 x 3 x 4 with row [4]", {2, 3, 4}, {4}),
                sample("column [3, 1] with row [1, 5]", {3, 1}, {1, 5}),
                sample("scalar with 2 x 3", {}, {2, 3}),
                sample("empty with row", {0, 4}, {4}),
                {"transposed with contiguous",
                 {make.normal({4, 3}), draw(make, domain, {3, 4})},
                 [op](const Tensors& in) -> Tensors { return {op(transpose(in[0], 0, 1), in[1])}; }},
                {"with its own square",
                 {draw(make, domain, {5})},
                 [op](const Tensors& in) -> Tensors { return {op(in[0], square(in[0]))}; }},
            };
            if (more) {
              for (OpSample& extra : more(make)) samples.push_back(std::move(extra));
            }
            return samples;
          }};
}

// The forms with a number on one side.
template <class Right, class Left>
Samples with_number(SampleMaker& make, Right right, Left left) {
  return {{"tensor and number", {make.normal({2, 3})}, [=](const Tensors& in) -> Tensors { return {right(in[0])}; }},
          {"number and tensor", {make.away_from_zero({2, 3})}, [=](const Tensors& in) -> Tensors {
             return {left(in[0])};
           }}};
}

OpEntry comparison(const char* name, BinaryOp op) {
  return {name,
          [=](SampleMaker& make) -> Samples {
            const auto run = [op](const Tensors& in) -> Tensors { return {op(in[0], in[1])}; };
            return {{"integers, broadcast", {make.integers({3, 4}, 3), make.integers({4}, 3)}, run},
                    {"numbers", {make.normal({5}), make.normal({5})}, run}};
          },
          false};
}

OpEntry cast_entry() {
  return {"cast", [](SampleMaker& make) -> Samples {
            const auto there_and_back = [](const Tensors& in) -> Tensors {
              const DType own = in[0].dtype();
              return {cast(cast(in[0], own == DType::f64 ? DType::f32 : DType::f64), own)};
            };
            // At 0, because finite differences elsewhere would see the rounding to f32.
            return {{"to the other width and back", {make.uniform({3, 4}, 0, 0)}, there_and_back}};
          }};
}

OpEntry where_entry() {
  return {"where", [](SampleMaker& make) -> Samples {
            const auto run = [](const Tensors& in) -> Tensors {
              return {where(less(in[0], Tensor::full({}, 2, DType::i64, in[0].device())), in[1], in[2])};
            };
            return {{"3 x 4", {make.integers({3, 4}, 4), make.normal({3, 4}), make.normal({3, 4})}, run},
                    {"mask column, scalar", {make.integers({3, 1}, 4), make.normal({3, 4}), make.normal({})}, run},
                    {"operands broadcast by the mask",
                     {make.integers({2, 3, 4}, 4), make.normal({4}), make.normal({3, 1})},
                     run}};
          }};
}

}  // namespace

OpList elementwise_ops() {
  const auto gelu_exact = [](const Tensor& x) { return gelu(x); };
  return {
      entry("add", BinaryOp(add), Domain::all,
            [](SampleMaker& make) {
              return with_number(
                  make, [](const Tensor& x) { return x + 1.5; }, [](const Tensor& x) { return 1.5 + x; });
            }),
      entry("sub", BinaryOp(sub), Domain::all,
            [](SampleMaker& make) {
              return with_number(
                  make, [](const Tensor& x) { return x - 1.5; }, [](const Tensor& x) { return 1.5 - x; });
            }),
      entry("mul", BinaryOp(mul), Domain::all,
            [](SampleMaker& make) {
              return with_number(
                  make, [](const Tensor& x) { return x * 1.5; }, [](const Tensor& x) { return 1.5 * x; });
            }),
      entry("div", BinaryOp(div), Domain::positive,
            [](SampleMaker& make) {
              return with_number(
                  make, [](const Tensor& x) { return x / 1.5; }, [](const Tensor& x) { return 1.5 / (x + 5.0); });
            }),
      entry("maximum", BinaryOp(maximum)),
      entry("minimum", BinaryOp(minimum)),
      entry("silu_gated", BinaryOp(silu_gated)),
      entry("exp", UnaryOp(exp)),
      entry("log", UnaryOp(log), Domain::positive),
      entry("log1p", UnaryOp(log1p), Domain::positive),
      entry("sigmoid", UnaryOp(sigmoid)),
      entry("softplus", UnaryOp(softplus)),
      entry("log_sigmoid", UnaryOp(log_sigmoid)),
      entry("tanh", UnaryOp(tanh)),
      entry("relu", UnaryOp(relu), Domain::not_zero),
      entry("silu", UnaryOp(silu)),
      entry("sqrt", UnaryOp(sqrt), Domain::positive),
      entry("rsqrt", UnaryOp(rsqrt), Domain::positive),
      entry("abs", UnaryOp(abs), Domain::not_zero),
      entry("neg", UnaryOp(neg)),
      entry("square", UnaryOp(square)),
      entry("reciprocal", UnaryOp(reciprocal), Domain::positive),
      entry("sin", UnaryOp(sin)),
      entry("cos", UnaryOp(cos)),
      entry("erf", UnaryOp(erf)),
      entry("gelu", gelu_exact, Domain::all,
            [](SampleMaker& make) -> Samples {
              return {{"tanh form", {make.normal({3, 5}, 2)}, [](const Tensors& in) -> Tensors {
                         return {gelu(in[0], GeluForm::tanh)};
                       }}};
            }),
      entry(
          "pow", [](const Tensor& x) { return pow(x, 2.5); }, Domain::positive,
          [](SampleMaker& make) -> Samples {
            return {
                {"cube of any sign", {make.normal({5})}, [](const Tensors& in) -> Tensors { return {pow(in[0], 3)}; }},
                {"inverse", {make.uniform({5}, 0.5, 2)}, [](const Tensors& in) -> Tensors {
                   return {pow(in[0], -1)};
                 }}};
          }),
      entry("clamp", [](const Tensor& x) { return clamp(x, -1, 1.25); }),
      cast_entry(),
      where_entry(),
      comparison("equal", equal),
      comparison("less", less),
      comparison("greater", greater),
  };
}

}  // namespace monoid

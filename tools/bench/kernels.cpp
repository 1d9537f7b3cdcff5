// Ops at the sizes models use them: GEMM, scans, norms, losses, optimizer. Floors count each tensor once.

#include "monoid/core/random.h"
#include "monoid/ops/conv.h"
#include "monoid/ops/cross_entropy.h"
#include "monoid/ops/dropout.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/embedding.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/norm.h"
#include "monoid/ops/optim.h"
#include "monoid/ops/registry.h"
#include "monoid/ops/scan.h"
#include "monoid/ops/softmax.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

using Op = std::function<Tensors(const Tensors&)>;

std::string joined(const Shape& shape) {
  std::string text;
  for (int axis = 0; axis < shape.rank(); ++axis) text += str(axis ? " x " : "", shape[axis]);
  return text;
}

// Forward alone, and forward with backward from a random cotangent.
std::vector<Case> both_directions(const std::string& name, const std::string& shape, const Tensors& inputs,
                                  const Op& op, double items, double forward_bytes, double total_bytes,
                                  double forward_flops = 0) {
  Generator generator(7);
  Tensors leaves, cotangents;
  for (const Tensor& input : inputs) {
    leaves.push_back(input.detach());
    if (is_floating(input.dtype())) leaves.back().set_requires_grad();
  }
  for (const Tensor& output : op(inputs)) cotangents.push_back(random_normal(output.shape(), generator));
  cotangents.resize(1);
  return {{name + "/forward", shape, forward_bytes, forward_flops, items, [=] { op(inputs); }},
          {name + "/forward+backward", shape, total_bytes, 3 * forward_flops, items, [=] {
             for (Tensor leaf : leaves) leaf.clear_grad();
             Tape tape;
             Tensors outputs = op(leaves);
             outputs.resize(1);
             tape.backward(outputs, cotangents);
           }}};
}

struct ScanShape {
  Shape shape;
  const char* note;
};

const ScanShape kScanShapes[] = {
    {{4, 64, 384}, ", in cache"}, {{8, 256, 384}, ""}, {{8, 4096, 1536}, ", from memory"}, {{1, 65536, 512}, ", long"}};

// What a scan reads: one packed normal tensor of `operands` channels each, or operands that are uniform in a range.
struct ScanInputs {
  int operands;
  bool packed;
  double low = 0, high = 0;
};

CaseMaker scan_case(const char* name, ScanInputs wanted, Op op) {
  return {name, [=] {
            std::vector<Case> cases;
            for (const auto& [shape, note] : kScanShapes) {
              Generator generator(3);
              Tensors inputs;
              if (wanted.packed) {
                inputs = {random_normal(shape.with(2, shape[2] * wanted.operands), generator)};
              }
              while (!wanted.packed && inputs.size() < static_cast<size_t>(wanted.operands)) {
                inputs.push_back(random_uniform(shape, generator, wanted.low, wanted.high));
              }
              const double elements = static_cast<double>(shape.elements());
              // forward: operands in, states out; backward: operands, states and cotangent in, gradients out.
              const double forward = 4 * elements * (wanted.operands + 1),
                           backward = 4 * elements * (2 * wanted.operands + 2);
              for (Case& item :
                   both_directions(name, joined(shape) + note, inputs, op, elements, forward, forward + backward)) {
                cases.push_back(std::move(item));
              }
            }
            return cases;
          }};
}

}  // namespace

std::vector<CaseMaker> gemm_cases() {
  struct Product {
    int64_t rows, in, out;
  };
  std::vector<CaseMaker> makers;
  for (const auto& [rows, in, out] : {Product{2048, 2048, 2048}, Product{2048, 256, 768}, Product{2048, 256, 1024},
                                      Product{2048, 1024, 256}, Product{16384, 384, 1536}, Product{1, 512, 2048}}) {
    const std::string name = str("linear/", rows, "x", in, "->", out);
    makers.push_back(
        {name, [=] {
           Generator generator(5);
           const Tensor x = random_normal({rows, in}, generator), w = random_normal({out, in}, generator);
           const auto r = static_cast<double>(rows), i = static_cast<double>(in), o = static_cast<double>(out);
           const double bytes = 4 * (r * i + i * o + r * o);
           return both_directions(
               "linear", str(rows, " x ", in, " -> ", out), {x, w},
               [](const Tensors& t) { return Tensors{linear(t[0], t[1])}; }, r, bytes, 3 * bytes, 2 * r * i * o);
         }});
  }
  return makers;
}

std::vector<CaseMaker> scan_cases() {
  const auto pair = [](const ScanResult& result) { return Tensors{result.states}; };
  return {
      scan_case("min_gru_scan", {2, true}, [=](const Tensors& t) { return pair(min_gru_scan(t[0])); }),
      scan_case("min_lstm_scan", {3, true}, [=](const Tensors& t) { return pair(min_lstm_scan(t[0])); }),
      scan_case("linear_scan", {2, false, 0.05, 0.95}, [=](const Tensors& t) { return pair(linear_scan(t[0], t[1])); }),
      scan_case("log_scan", {2, false, -3, 0}, [=](const Tensors& t) { return pair(log_scan(t[0], t[1])); }),
  };
}

std::vector<CaseMaker> layer_op_cases() {
  // Units: passes over x that forward and forward+backward cannot avoid.
  const auto rows_case = [](const char* name, Shape shape, double forward_units, double total_units, auto make_op) {
    return CaseMaker{name, [=] {
                       Generator generator(11);
                       const Tensor x = random_normal(shape, generator);
                       const double elements = static_cast<double>(x.elements());
                       return both_directions(name, joined(shape), {x}, make_op(shape, generator), elements,
                                              4 * elements * forward_units, 4 * elements * total_units);
                     }};
  };
  const auto plain = [](Tensor (*op)(const Tensor&)) {
    return [=](const Shape&, Generator&) -> Op { return [=](const Tensors& t) { return Tensors{op(t[0])}; }; };
  };
  std::vector<CaseMaker> makers{
      rows_case("silu", {2048, 1024}, 2, 5, plain([](const Tensor& x) { return silu(x); })),
      rows_case("gelu", {2048, 1024}, 2, 5, plain([](const Tensor& x) { return gelu(x); })),
      rows_case("gelu", {16384, 1536}, 2, 5, plain([](const Tensor& x) { return gelu(x); })),
      rows_case("softmax", {2048, 1024}, 2, 5, plain([](const Tensor& x) { return softmax(x); })),
      rows_case("add_residual", {16384, 384}, 3, 3, plain([](const Tensor& x) { return add(x, x.detach()); })),
      rows_case("rms_norm", {16384, 384}, 2, 5,
                [](const Shape& shape, Generator&) -> Op {
                  return [w = Tensor::ones({shape.back()})](const Tensors& t) { return Tensors{rms_norm(t[0], w)}; };
                }),
      rows_case("layer_norm", {16384, 384}, 2, 5,
                [](const Shape& shape, Generator&) -> Op {
                  return [w = Tensor::ones({shape.back()}), b = Tensor::zeros({shape.back()})](const Tensors& t) {
                    return Tensors{layer_norm(t[0], w, b)};
                  };
                }),
      rows_case("dropout", {16384, 384}, 2, 4,
                [](const Shape&, Generator&) -> Op {
                  return [](const Tensors& t) {
                    Generator generator(1);
                    return Tensors{dropout(t[0], 0.1, generator)};
                  };
                }),
      rows_case("causal_depthwise_conv1d", {64, 256, 384}, 2, 5,
                [](const Shape& shape, Generator& generator) -> Op {
                  return [w = random_normal({shape.back(), 3}, generator)](const Tensors& t) {
                    return Tensors{causal_depthwise_conv1d(t[0], w).output};
                  };
                }),
      rows_case("cross_entropy", {2048, 8192}, 1, 3,
                [](const Shape& shape, Generator& generator) -> Op {
                  return [y = random_integers({shape[0]}, generator, shape[1])](const Tensors& t) {
                    return Tensors{cross_entropy(t[0], y)};
                  };
                }),
      rows_case("embedding", {65, 384}, 16384.0 / 65, 2 * 16384.0 / 65,
                [](const Shape& shape, Generator& generator) -> Op {
                  return [y = random_integers({16384}, generator, shape[0])](const Tensors& t) {
                    return Tensors{embedding(t[0], y)};
                  };
                }),
  };
  makers.push_back(
      {"adamw", [] {
         Generator generator(13);
         Tensors parameters;
         for (int i = 0; i < 8; ++i) {
           parameters.push_back(random_normal({1 << 21}, generator).set_requires_grad());
           parameters.back().set_grad(random_normal({1 << 21}, generator));
         }
         const double count = 8.0 * (1 << 21);
         auto optimizer = std::make_shared<AdamW>(
             std::vector<ParameterGroup>{{.name = "all", .parameters = parameters, .weight_decay = 0.1}},
             AdamWOptions{});
         return std::vector<Case>{{"adamw/step", "8 x 2097152", 28 * count, 0, count, [=] { optimizer->step(1e-3); }}};
       }});
  return makers;
}

std::vector<CaseMaker> registry_cases() {
  std::vector<CaseMaker> makers;
  for (const OpEntry& entry : op_registry()) {
    makers.push_back(
        {"op/" + entry.name, [&entry] {
           SampleMaker make(17, DType::f32);
           std::vector<Case> cases;
           for (const OpSample& sample : entry.samples(make)) {
             cases.push_back({"op/" + entry.name, sample.label, 0, 0, 1, [sample] { sample.run(sample.inputs); }});
           }
           return cases;
         }});
  }
  return makers;
}

}  // namespace monoid::bench

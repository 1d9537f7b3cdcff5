// Ops at the sizes models use them: GEMM, scans, norms, losses, optimizer. Floors count each tensor once.

#include <memory>

#include "monoid/core/random.h"
#include "monoid/core/runtime.h"
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

std::string joined(const Shape& shape) {
  std::string text;
  for (int axis = 0; axis < shape.rank(); ++axis) text += str(axis ? " x " : "", shape[axis]);
  return text;
}

struct ScanShape {
  Shape shape;
  const char* note;
};

const ScanShape kScanShapes[] = {{{4, 64, 384}, ", in cache"},       {{8, 256, 384}, ""},  {{4, 512, 768}, ""},
                                 {{8, 4096, 1536}, ", from memory"}, {{64, 512, 768}, ""}, {{1, 65536, 512}, ", long"}};

// What a scan reads: one packed normal tensor of `operands` channels each, or operands that are uniform in a range.
struct ScanInputs {
  int operands;
  bool packed;
  double low = 0, high = 0;
};

CaseMaker scan_case(const char* name, ScanInputs wanted, Op op) {
  return {name, [=](const Target& target) {
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
              const double unit = elements * static_cast<double>(size_of(target.dtype));
              // forward: operands in, states out; backward: operands, states and cotangent in, gradients out (a linear
              // scan's b is not read again).
              const double forward = unit * (wanted.operands + 1),
                           backward = unit * (2 * wanted.operands + (wanted.packed ? 2 : 1));
              for (Case& item : both_directions(target, name, joined(shape) + note, inputs, op,
                                                {elements, forward, forward + backward})) {
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
  for (const auto& [rows, in, out] :
       {Product{2048, 2048, 2048}, Product{2048, 256, 768}, Product{2048, 256, 1024}, Product{2048, 1024, 256},
        Product{16384, 384, 1536}, Product{32768, 512, 2048}, Product{32768, 768, 512}, Product{32768, 1024, 4096},
        Product{8192, 8192, 8192}, Product{1, 512, 2048}, Product{64, 512, 2048}}) {
    const std::string name = str("linear/", rows, "x", in, "->", out);
    makers.push_back({name, [=](const Target& target) {
                        Generator generator(5);
                        const Tensor x = random_normal({rows, in}, generator), w = random_normal({out, in}, generator);
                        const auto r = static_cast<double>(rows), i = static_cast<double>(in),
                                   o = static_cast<double>(out);
                        const double bytes = static_cast<double>(size_of(target.dtype)) * (r * i + i * o + r * o);
                        Target here = target;
                        here.verify = target.verify && r * i * o < 1e11;  // more takes minutes on the CPU
                        return both_directions(here, "linear", str(rows, " x ", in, " -> ", out), {x, w},
                                               [](const Tensors& t) { return Tensors{linear(t[0], t[1])}; },
                                               {r, bytes, 3 * bytes, 2 * r * i * o});
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
  // Units: passes over x that forward and forward + backward cannot avoid. What else an op takes comes after x.
  const auto rows_case = [](const char* name, Shape shape, double forward_units, double total_units, Op op,
                            std::function<Tensors(const Shape&, Generator&)> others = {}) {
    return CaseMaker{name, [=](const Target& target) {
                       Generator generator(11);
                       Tensors inputs{random_normal(shape, generator)};
                       if (others) {
                         for (const Tensor& other : others(shape, generator)) inputs.push_back(other);
                       }
                       const double elements = static_cast<double>(shape.elements());
                       const double unit = elements * static_cast<double>(size_of(target.dtype));
                       return both_directions(target, name, joined(shape), inputs, op,
                                              {elements, unit * forward_units, unit * total_units});
                     }};
  };
  const auto weights = [](int count) {
    return [=](const Shape& shape, Generator& generator) {
      Tensors tensors;
      for (int i = 0; i < count; ++i) tensors.push_back(random_normal({shape.back()}, generator));
      return tensors;
    };
  };
  std::vector<CaseMaker> makers;
  for (const Shape& shape : {Shape{2048, 1024}, Shape{16384, 1536}, Shape{32768, 2048}}) {
    makers.push_back(rows_case("silu", shape, 2, 5, [](const Tensors& t) { return Tensors{silu(t[0])}; }));
    makers.push_back(rows_case("gelu", shape, 2, 5, [](const Tensors& t) { return Tensors{gelu(t[0])}; }));
    makers.push_back(rows_case("softmax", shape, 2, 5, [](const Tensors& t) { return Tensors{softmax(t[0])}; }));
  }
  for (const Shape& shape : {Shape{2048, 512}, Shape{16384, 384}, Shape{65536, 1024}}) {
    makers.push_back(
        rows_case("add_residual", shape, 3, 3, [](const Tensors& t) { return Tensors{add(t[0], t[0].detach())}; }));
    makers.push_back(rows_case(
        "rms_norm", shape, 2, 5, [](const Tensors& t) { return Tensors{rms_norm(t[0], t[1])}; }, weights(1)));
    makers.push_back(rows_case(
        "layer_norm", shape, 2, 5, [](const Tensors& t) { return Tensors{layer_norm(t[0], t[1], t[2])}; }, weights(2)));
    makers.push_back(rows_case("dropout", shape, 2, 4, [](const Tensors& t) {
      Generator generator(1);
      return Tensors{dropout(t[0], 0.1, generator)};
    }));
  }
  struct Convolution {
    const char* name;
    int64_t taps;
  };
  for (const Convolution& conv :
       {Convolution{"causal_depthwise_conv1d", 4}, Convolution{"causal_depthwise_conv1d, 7 taps", 7}}) {
    for (const Shape& shape : {Shape{64, 256, 384}, Shape{8, 4096, 2048}}) {
      makers.push_back(rows_case(
          conv.name, shape, 2, 5, [](const Tensors& t) { return Tensors{causal_depthwise_conv1d(t[0], t[1]).output}; },
          [taps = conv.taps](const Shape& x, Generator& generator) {
            return Tensors{random_normal({x.back(), taps}, generator)};
          }));
    }
  }
  // Forward alone reads the logits; the gradient is written in the same pass where one is wanted.
  for (const Shape& shape :
       {Shape{2048, 8192}, Shape{32768, 65}, Shape{16384, 8192}, Shape{16384, 50304}, Shape{8192, 128256}}) {
    makers.push_back(rows_case(
        "cross_entropy", shape, 1, 2, [](const Tensors& t) { return Tensors{cross_entropy(t[0], t[1])}; },
        [](const Shape& x, Generator& generator) { return Tensors{random_integers({x[0]}, generator, x[1])}; }));
  }
  for (const Shape& shape : {Shape{65, 384}, Shape{256, 512}}) {
    const auto tokens = [](const Shape& x, Generator& generator) {
      return Tensors{random_integers({32768}, generator, x[0])};
    };
    const double rows = 32768.0 / static_cast<double>(shape[0]);
    makers.push_back(rows_case(
        "embedding", shape, rows, 2 * rows, [](const Tensors& t) { return Tensors{embedding(t[0], t[1])}; }, tokens));
  }
  makers.push_back({"adamw", [](const Target& target) {
                      Generator generator(13);
                      Tensors parameters;
                      for (int i = 0; i < 16; ++i) {
                        const auto numbers = [&] {
                          return random_normal({1 << 22}, generator).to(target.dtype).to(target.device);
                        };
                        parameters.push_back(numbers().set_requires_grad());
                        parameters.back().set_grad(numbers());
                      }
                      const double count = 16.0 * (1 << 22);
                      auto optimizer = std::make_shared<AdamW>(
                          std::vector<ParameterGroup>{{.name = "all", .parameters = parameters, .weight_decay = 0.1}},
                          AdamWOptions{});
                      const double width = static_cast<double>(size_of(target.dtype));
                      Case step{"adamw/step", "16 x 4194304",
                                (24 + (target.dtype == DType::bf16 ? 2 : 1) * width) * count, 0, count};
                      Case clipped = step;
                      clipped.name = "adamw/clip+step";
                      clipped.bytes += width * count;
                      step.run = [=] { optimizer->step(1e-3); };
                      clipped.run = [=] { optimizer->clip_and_step(1); };
                      for (Case* item : {&step, &clipped}) {
                        if (target.device.is_cuda()) item->timed = timed_on_device(target.device, item->run);
                      }
                      return std::vector<Case>{step, clipped};
                    }});
  return makers;
}

std::vector<CaseMaker> registry_cases() {
  std::vector<CaseMaker> makers;
  for (const OpEntry& entry : op_registry()) {
    makers.push_back({"op/" + entry.name, [&entry](const Target& target) {
                        SampleMaker make(17, target.dtype, target.device);
                        std::vector<Case> cases;
                        for (const OpSample& sample : entry.samples(make)) {
                          cases.push_back({"op/" + entry.name, sample.label, 0, 0, 1, [sample, device = target.device] {
                                             sample.run(sample.inputs);
                                             synchronize(device);
                                           }});
                        }
                        return cases;
                      }});
  }
  return makers;
}

}  // namespace monoid::bench

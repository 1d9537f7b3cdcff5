#pragma once

#include <functional>
#include <string>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"

namespace monoid {

/// One ready-to-run call of an op. Floating-point inputs are the ones a gradient check perturbs.
struct OpSample {
  std::string label;  // what this case shows: "3 x 5, broadcast bias"
  Tensors inputs;
  std::function<Tensors(const Tensors& inputs)> run;
};

/// Makes the inputs of samples: seeded, of one dtype, on one device, so that a case is the same on both devices.
class SampleMaker {
 public:
  explicit SampleMaker(uint64_t seed, DType dtype = DType::f64, Device device = kCpu)
      : generator_(seed), dtype_(dtype), device_(device) {}

  Tensor normal(const Shape& shape, double deviation = 1);
  Tensor uniform(const Shape& shape, double low, double high);
  /// Numbers whose magnitude is at least `gap`: for functions with a kink at 0.
  Tensor away_from_zero(const Shape& shape, double gap = 0.1);
  Tensor integers(const Shape& shape, int64_t bound);

 private:
  Generator generator_;
  DType dtype_;
  Device device_;
};

/// An op by name, with calls that cover its variants. Gradient checks, device parity and `bench` iterate over these.
struct OpEntry {
  std::string name;
  std::function<std::vector<OpSample>(SampleMaker& make)> samples;
  bool differentiable = true;
};

const std::vector<OpEntry>& op_registry();

// One list a family, in ops/registry/<family>.cpp.
using OpList = std::vector<OpEntry>;
OpList attention_ops();
OpList cross_entropy_ops();
OpList dropout_ops();
OpList elementwise_ops();
OpList norm_ops();
OpList matmul_ops();
OpList matrix_scan_ops();
OpList rotary_ops();
OpList scan_ops();
OpList softmax_ops();
OpList embedding_ops();
OpList gate_loop_ops();
OpList gated_gelu_ops();
OpList reduce_ops();
OpList shape_ops();
OpList conv_ops();

}  // namespace monoid

#include "monoid/ops/registry.h"

#include <cmath>

namespace monoid {

Tensor SampleMaker::normal(const Shape& shape, double deviation) {
  return random_normal(shape, generator_, 0, deviation, DType::f64).to(dtype_).to(device_);
}

Tensor SampleMaker::uniform(const Shape& shape, double low, double high) {
  return random_uniform(shape, generator_, low, high, DType::f64).to(dtype_).to(device_);
}

Tensor SampleMaker::away_from_zero(const Shape& shape, double gap) {
  Tensor values = random_normal(shape, generator_, 0, 1, DType::f64);
  double* x = values.data<double>();
  for (int64_t i = 0; i < values.elements(); ++i) x[i] += std::copysign(gap, x[i]);
  return values.to(dtype_).to(device_);
}

Tensor SampleMaker::integers(const Shape& shape, int64_t bound) {
  return random_integers(shape, generator_, bound).to(device_);
}

const std::vector<OpEntry>& op_registry() {
  static const std::vector<OpEntry> registry = [] {
    std::vector<OpEntry> all;
    for (const auto family : std::initializer_list<OpList (*)()>{
             // one line a family
             attention_ops,
             cross_entropy_ops,
             dropout_ops,
             elementwise_ops,
             norm_ops,
             matmul_ops,
             matrix_scan_ops,
             rotary_ops,
             scan_ops,
             gate_loop_ops,
             gated_gelu_ops,
             softmax_ops,
             embedding_ops,
             reduce_ops,
             shape_ops,
             conv_ops,
         }) {
      for (OpEntry& entry : family()) all.push_back(std::move(entry));
    }
    return all;
  }();
  return registry;
}

}  // namespace monoid

#include "monoid/ops/scan.h"

#include "monoid/ops/registry.h"

namespace monoid {
namespace {

using AffineScan = ScanResult (*)(const Tensor&, const Tensor&, const Tensor&, Direction);
using PackedScan = ScanResult (*)(const Tensor&, const Tensor&);

Tensors outputs(const ScanResult& result) { return {result.states, result.final}; }

std::vector<OpSample> affine_samples(AffineScan scan, SampleMaker& make, double low, double high) {
  std::vector<OpSample> samples;
  for (const Direction direction : {Direction::forward, Direction::reverse}) {
    const std::string way = direction == Direction::forward ? "forward" : "reverse";
    const auto with_state = [=](const Tensors& in) { return outputs(scan(in[0], in[1], in[2], direction)); };
    const auto without = [=](const Tensors& in) { return outputs(scan(in[0], in[1], {}, direction)); };
    samples.push_back({way + ", 2 x 5 x 3 with a state",
                       {make.uniform({2, 5, 3}, low, high), make.normal({2, 5, 3}), make.normal({2, 3})},
                       with_state});
    samples.push_back({way + ", no state", {make.uniform({1, 7, 3}, low, high), make.normal({1, 7, 3})}, without});
  }
  samples.push_back({"one step, one channel",
                     {make.uniform({1, 1, 1}, low, high), make.normal({1, 1, 1}), make.normal({1, 1})},
                     [=](const Tensors& in) { return outputs(scan(in[0], in[1], in[2], Direction::forward)); }});
  samples.push_back({"no steps, so the final state is the initial one",
                     {make.normal({2, 0, 3}), make.normal({2, 0, 3}), make.normal({2, 3})},
                     [=](const Tensors& in) { return outputs(scan(in[0], in[1], in[2], Direction::forward)); }});
  return samples;
}

std::vector<OpSample> packed_samples(PackedScan scan, int64_t parts, SampleMaker& make) {
  // hidden away from 0, where g has a kink.
  const auto with_state = [=](const Tensors& in) { return outputs(scan(in[0], in[1])); };
  const auto without = [=](const Tensors& in) { return outputs(scan(in[0], {})); };
  return {
      {"2 x 4 x 3 with a state", {make.away_from_zero({2, 4, 3 * parts}), make.uniform({2, 3}, 0.1, 2)}, with_state},
      {"no state, wide range", {make.away_from_zero({1, 8, 2 * parts}, 2)}, without},
      {"one step, one channel", {make.away_from_zero({1, 1, parts}), make.uniform({1, 1}, 0.1, 2)}, with_state},
      {"no steps", {make.normal({2, 0, 3 * parts}), make.uniform({2, 3}, 0.1, 2)}, with_state},
  };
}

}  // namespace

OpList scan_ops() {
  return {
      {"linear_scan", [](SampleMaker& make) { return affine_samples(linear_scan, make, -1.5, 1.5); }},
      {"log_scan", [](SampleMaker& make) { return affine_samples(log_scan, make, -2, 0.5); }},
      {"min_gru_scan", [](SampleMaker& make) { return packed_samples(min_gru_scan, 2, make); }},
      {"min_lstm_scan", [](SampleMaker& make) { return packed_samples(min_lstm_scan, 3, make); }},
  };
}

}  // namespace monoid

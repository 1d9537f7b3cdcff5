#include "monoid/ops/gate_loop.h"

#include "monoid/ops/complex_scan.h"
#include "monoid/ops/registry.h"

namespace monoid {
namespace {

std::vector<OpSample> complex_samples(SampleMaker& make) {
  std::vector<OpSample> samples;
  for (const Direction direction : {Direction::forward, Direction::reverse}) {
    const std::string way = direction == Direction::forward ? "forward" : "reverse";
    const auto scan = [direction](const Tensors& in) {
      const ScanResult result = complex_scan(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), direction);
      return Tensors{result.states, result.final};
    };
    samples.push_back({way + ", 2 x 5 x 3 with a state",
                       {make.normal({2, 5, 3, 2}), make.normal({2, 5, 3, 2}), make.normal({2, 3, 2})},
                       scan});
    samples.push_back({way + ", no state", {make.normal({1, 7, 4, 2}), make.normal({1, 7, 4, 2})}, scan});
    samples.push_back(
        {way + ", no steps", {make.normal({2, 0, 3, 2}), make.normal({2, 0, 3, 2}), make.normal({2, 3, 2})}, scan});
  }
  return samples;
}

std::vector<OpSample> gate_loop_samples(SampleMaker& make) {
  std::vector<OpSample> samples;
  const auto add = [&](std::string label, Shape qkv, int64_t heads, bool with_state, GateLoopOptions options = {}) {
    const int64_t size = heads > 0 ? qkv[2] / 3 / heads : 1;
    // z away from 0, where its angle jumps.
    Tensors inputs{make.normal(qkv), make.away_from_zero({qkv[0], qkv[1], heads, 2}, 0.2)};
    if (with_state) inputs.push_back(make.normal({qkv[0], heads, size, size, 2}));
    samples.push_back({std::move(label), inputs, [=](const Tensors& in) {
                         const GateLoopResult result =
                             gate_loop_scan(in[0], in[1], options, in.size() > 2 ? in[2] : Tensor());
                         return Tensors{result.output, result.final};
                       }});
  };
  const auto add_both = [&](const std::string& label, bool with_state, GateLoopOptions options) {
    add(label + ", a channel a head", {2, 6, 9}, 3, with_state, options);
    add(label + ", heads of 3", {2, 5, 18}, 2, with_state, options);
  };
  add_both("with a state", true, {});
  add_both("no state", false, {});
  add_both("real transition", true, {Transition::real});
  add_both("transition 1", true, {Transition::one});
  add("one step, one channel", {1, 1, 3}, 1, true);
  add("more steps than a stretch, heads of 2", {1, 67, 12}, 2, true);
  add("one head of all channels", {1, 3, 12}, 1, true);
  add("no steps", {2, 0, 6}, 2, true);
  add("no steps, heads of 2", {2, 0, 12}, 2, true);
  add("no batch, heads of 2", {0, 4, 12}, 2, true);
  return samples;
}

std::vector<OpSample> simple_samples(SampleMaker& make) {
  std::vector<OpSample> samples;
  for (const Direction direction : {Direction::forward, Direction::reverse}) {
    const std::string way = direction == Direction::forward ? "forward" : "reverse";
    const auto scan = [direction](const Tensors& in) {
      const GateLoopResult result = simple_gate_loop_scan(in[0], in.size() > 1 ? in[1] : Tensor(), direction);
      return Tensors{result.output, result.final};
    };
    samples.push_back({way + ", 2 x 6 x 3 with a state", {make.normal({2, 6, 9}), make.normal({2, 3})}, scan});
    samples.push_back({way + ", no state", {make.normal({1, 9, 12}, 3)}, scan});
    samples.push_back({way + ", one step", {make.normal({1, 1, 3}), make.normal({1, 1})}, scan});
    samples.push_back({way + ", no steps", {make.normal({2, 0, 9}), make.normal({2, 3})}, scan});
  }
  return samples;
}

}  // namespace

OpList gate_loop_ops() {
  return {
      {"complex_scan", complex_samples},
      {"gate_loop_scan", gate_loop_samples},
      {"simple_gate_loop_scan", simple_samples},
  };
}

}  // namespace monoid

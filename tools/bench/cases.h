#pragma once

#include <functional>
#include <string>
#include <vector>

#include "monoid/core/dtype.h"
#include "monoid/core/tape.h"

namespace monoid::bench {

/// Where the cases run, and in which dtype.
struct Target {
  Device device = kCpu;
  DType dtype = DType::f32;
  bool verify = true;  // on a GPU, compare each case with the CPU in f64 before it is timed
};

/// One thing to time. `bytes` and `flops` are the least any implementation must move and compute: their floor is what
/// the time is compared with.
struct Case {
  std::string name;   // "min_gru_scan/forward"
  std::string shape;  // "4 x 64 x 384, in cache"
  double bytes = 0;
  double flops = 0;
  double items = 0;  // what the rate counts: elements of a scan, tokens of a model
  /// Does it once; the time it takes is the time on the clock.
  std::function<void()> run = {};
  /// Where set: does it and says how long it took on the device, in seconds.
  std::function<double()> timed = {};
  double error = -1;  // against the CPU in f64, relative to the largest value; -1: not compared
};

/// Cases are made when they run, so that only the selected ones allocate.
struct CaseMaker {
  std::string name;
  std::function<std::vector<Case>(const Target& target)> make;
};

std::vector<CaseMaker> gemm_cases();
std::vector<CaseMaker> scan_cases();
std::vector<CaseMaker> matrix_scan_cases();
std::vector<CaseMaker> gate_loop_cases();
std::vector<CaseMaker> layer_op_cases();
std::vector<CaseMaker> attention_cases();
std::vector<CaseMaker> model_cases();
/// Every sample of the op registry, forward and backward: what one call costs when the tensors are tiny.
std::vector<CaseMaker> registry_cases();

using Op = std::function<Tensors(const Tensors&)>;

/// What an op costs at least.
struct Floor {
  double items = 0;
  double forward_bytes = 0, total_bytes = 0;  // total: with the gradient
  double forward_flops = 0;
};

/// An op on CPU tensors brought to the target: forward alone, and forward with backward from a random cotangent of its
/// first output. On a GPU the calls are captured as a graph and replayed over copies of the inputs that together exceed
/// the L2 cache, and the results are verified.
std::vector<Case> both_directions(const Target& target, const std::string& name, const std::string& shape,
                                  const Tensors& inputs, const Op& op, const Floor& floor);

/// Runs something once to warm up, captures it and replays it: seconds on the device of one call out of `calls`.
std::function<double()> timed_on_device(Device device, const std::function<void()>& run, double calls = 1);

}  // namespace monoid::bench

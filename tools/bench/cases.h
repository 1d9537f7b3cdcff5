#pragma once

#include <functional>
#include <string>
#include <vector>

namespace monoid::bench {

/// One thing to time. `bytes` and `flops` are the least any implementation must move and compute: their floor is what
/// the time is compared with.
struct Case {
  std::string name;   // "min_gru_scan/forward"
  std::string shape;  // "4 x 64 x 384, in cache"
  double bytes = 0;
  double flops = 0;
  double items = 0;  // what the rate counts: elements of a scan, tokens of a model
  std::function<void()> run;
};

/// Cases are made when they run, so that only the selected ones allocate.
struct CaseMaker {
  std::string name;
  std::function<std::vector<Case>()> make;
};

std::vector<CaseMaker> gemm_cases();
std::vector<CaseMaker> scan_cases();
std::vector<CaseMaker> layer_op_cases();
std::vector<CaseMaker> model_cases();
/// Every sample of the op registry, forward and backward: what one call costs when the tensors are tiny.
std::vector<CaseMaker> registry_cases();

}  // namespace monoid::bench

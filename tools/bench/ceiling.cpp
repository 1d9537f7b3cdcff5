#include "monoid/tools/bench/ceiling.h"

#include <algorithm>
#include <chrono>

#include "monoid/core/random.h"
#include "monoid/ops/matmul.h"

namespace monoid::bench {
namespace {

// The best of several runs: a ceiling is what the machine can do when nothing disturbs it.
template <class Run>
double best_seconds(int repeats, Run run) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

double Ceiling::floor(double bytes, double flops) const {
  return std::max(bytes / bytes_per_second, flops / flops_per_second);
}

Ceiling measure_ceiling() {
  Generator generator(1);
  Tensor from = random_uniform({int64_t{64} << 20}, generator), to = Tensor::zeros(from.shape());
  const double copy = best_seconds(8, [&] { to.copy_from(from); });
  constexpr int64_t n = 2048;
  const Tensor a = random_normal({n, n}, generator), b = random_normal({n, n}, generator);
  const double product = best_seconds(8, [&] { matmul(a, b); });
  return {2.0 * static_cast<double>(from.bytes()) / copy, 2.0 * n * n * n / product};
}

}  // namespace monoid::bench

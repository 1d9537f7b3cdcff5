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

Ceiling measure_ceiling(const Target& target) {
  const bool on_gpu = target.device.is_cuda();
  const auto best = [&](const std::function<void()>& run) {
    if (!on_gpu) return best_seconds(8, run);
    const auto timed = timed_on_device(target.device, run);
    double seconds = timed();
    for (int i = 0; i < 10; ++i) seconds = std::min(seconds, timed());
    return seconds;
  };
  Generator generator(1);
  const int64_t count = int64_t{on_gpu ? 512 : 64} << 20, n = on_gpu ? 8192 : 2048;
  const Tensor from = Tensor::full({count}, 1.5, DType::f32, target.device);
  Tensor to = Tensor::zeros(from.shape(), DType::f32, target.device);
  const double copy = best([&] { to.copy_from(from); });
  const auto matrix = [&] { return random_normal({n, n}, generator).to(target.dtype).to(target.device); };
  const Tensor a = matrix(), b = matrix();
  const double product = best([&] { matmul(a, b); });
  return {2.0 * static_cast<double>(from.bytes()) / copy, 2.0 * static_cast<double>(n * n * n) / product};
}

}  // namespace monoid::bench

// AdamW reads and writes seven streams once, so memory sets its speed; sums of squares add fixed blocks in order.

#include "monoid/kernels/optim.h"

#include <cmath>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/optim_math.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a task

double sum_of_squares(const Tensor& x) {
  return dispatch_real("gradient_norms", x.dtype(), [&]<class T>() {
    const T* const values = x.data<T>();
    std::vector<double> partial(static_cast<size_t>((x.elements() + kGrain - 1) / kGrain));
    parallel_for(x.elements(), kGrain, [&](int64_t begin, int64_t end) {
      double sum = 0;
      vectorised([&] {
        sum = sum_lanes<double>(end - begin, [from = values + begin](int64_t i) {
          const double value = from[i];
          return value * value;
        });
      });
      partial[static_cast<size_t>(begin / kGrain)] = sum;
    });
    double total = 0;
    for (double sum : partial) total += sum;
    return total;
  });
}

}  // namespace

void adamw(Tensor& counts, const Tensor& learning_rate, const Tensor& scales, std::span<const AdamWItem> items,
           const AdamWSettings& settings) {
  for (const AdamWItem& item : items) {
    const double scale = scales.defined() ? scales.data<double>()[item.group] : 1;
    if (std::isnan(scale)) continue;
    const double rate = *learning_rate.data<double>() * item.learning_rate_scale;
    const double count = counts.data<double>()[item.place] += 1;
    dispatch_real("adamw", item.parameter.dtype(), [&]<class T>() {
      const auto scalars = AdamWScalars<T>::make(settings, rate, item.weight_decay, count);
      const T gradient_scale = static_cast<T>(scale);
      T* const parameters = Tensor(item.parameter).data<T>();
      T* const means = Tensor(item.mean).data<T>();
      T* const squares = Tensor(item.mean_square).data<T>();
      const T* const gradients = item.gradient.data<T>();
      parallel_for(item.parameter.elements(), kGrain, [=](int64_t begin, int64_t end) {
        vectorised([=] {
#pragma GCC ivdep
          for (int64_t i = begin; i < end; ++i) {
            T parameter = parameters[i], mean = means[i], square = squares[i];
            scalars.update(gradient_scale * gradients[i], parameter, mean, square);
            parameters[i] = parameter;
            means[i] = mean;
            squares[i] = square;
          }
        });
      });
    });
  }
}

void gradient_norms(Tensor& norms, Tensor& scales, std::span<const GradientItem> items,
                    std::span<const double> limits) {
  const int64_t groups = scales.elements();
  double* const norm = norms.data<double>();
  std::fill_n(norm, groups + 1, 0.0);
  for (const GradientItem& item : items) norm[item.group] += sum_of_squares(item.gradient);
  for (int64_t group = 0; group < groups; ++group) {
    norm[groups] += norm[group];
    norm[group] = std::sqrt(norm[group]);
  }
  norm[groups] = std::sqrt(norm[groups]);
  const bool together = std::ssize(limits) == 1;
  for (int64_t group = 0; group < groups; ++group) {
    const auto limit = limits[together ? 0 : static_cast<size_t>(group)];
    scales.data<double>()[group] = clip_scale(norm[together ? groups : group], limit);
  }
}

}  // namespace monoid::cpu

// AdamW reads and writes seven streams once, so memory sets its speed; sums of squares add fixed blocks in order.

#include "monoid/kernels/optim.h"

#include <cmath>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a task

}  // namespace

void adamw(Tensor& parameter, const Tensor& gradient, Tensor& mean, Tensor& mean_square, const AdamWScalars& scalars) {
  dispatch_real("adamw", parameter.dtype(), [&]<class T>() {
    const T new_share = static_cast<T>(1 - scalars.beta1), new_square_share = static_cast<T>(1 - scalars.beta2);
    const T beta2 = static_cast<T>(scalars.beta2), epsilon = static_cast<T>(scalars.epsilon);
    const T keep = static_cast<T>(scalars.keep), l2 = static_cast<T>(scalars.l2);
    const T step_size = static_cast<T>(scalars.step_size), root = static_cast<T>(scalars.root_bias_correction);
    T* const parameters = parameter.data<T>();
    T* const means = mean.data<T>();
    T* const squares = mean_square.data<T>();
    const T* const gradients = gradient.data<T>();
    parallel_for(parameter.elements(), kGrain, [=](int64_t begin, int64_t end) {
      vectorised([=] {
#pragma GCC ivdep
        for (int64_t i = begin; i < end; ++i) {
          const T g = gradients[i] + l2 * parameters[i];
          const T m = means[i] + new_share * (g - means[i]);
          const T v = beta2 * squares[i] + new_square_share * (g * g);
          means[i] = m;
          squares[i] = v;
          parameters[i] = keep * parameters[i] - step_size * (m / (std::sqrt(v) / root + epsilon));
        }
      });
    });
  });
}

void sum_of_squares(const Tensor& x, Tensor& sums, int64_t index) {
  dispatch_real("sum_of_squares", x.dtype(), [&]<class T>() {
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
    sums.data<double>()[index] = total;
  });
}

}  // namespace monoid::cpu

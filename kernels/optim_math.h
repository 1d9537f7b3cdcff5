#pragma once

#include <cmath>

#include "monoid/kernels/host_device.h"
#include "monoid/kernels/optim.h"

namespace monoid {

/// The numbers of one parameter's update, made in double from its count and rounded to the type it computes in.
template <class T>
struct AdamWScalars {
  T new_share, new_square_share, beta2, epsilon;
  T keep;                  // 1 - rate * decay, or 1
  T l2;                    // the decay as a term of the gradient, or 0
  T step_size;             // rate / (1 - beta1^count)
  T root_bias_correction;  // sqrt(1 - beta2^count)

  MONOID_HOST_DEVICE static AdamWScalars make(const AdamWSettings& settings, double rate, double decay, double count) {
    return {static_cast<T>(1 - settings.beta1),
            static_cast<T>(1 - settings.beta2),
            static_cast<T>(settings.beta2),
            static_cast<T>(settings.epsilon),
            static_cast<T>(settings.decoupled ? 1 - rate * decay : 1),
            static_cast<T>(settings.decoupled ? 0 : decay),
            static_cast<T>(rate / (1 - std::pow(settings.beta1, count))),
            static_cast<T>(std::sqrt(1 - std::pow(settings.beta2, count)))};
  }

  /// Moves one number by its gradient.
  MONOID_HOST_DEVICE void update(T gradient, T& parameter, T& mean, T& mean_square) const {
    const T g = gradient + l2 * parameter;
    mean = mean + new_share * (g - mean);
    mean_square = beta2 * mean_square + new_square_share * (g * g);
    parameter = keep * parameter - step_size * (mean / (std::sqrt(mean_square) / root_bias_correction + epsilon));
  }
};

/// What a norm above its limit asks gradients to be multiplied by; NaN for a norm that is not finite.
MONOID_HOST_DEVICE inline double clip_scale(double norm, double limit) {
  if (!(norm - norm == 0)) return norm - norm;
  const double scale = limit / (norm + 1e-6);
  return limit > 0 && scale < 1 ? scale : 1;
}

}  // namespace monoid

#pragma once

#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {

/// y [m, n] = act(norm(x) [m, k] w [n, k]^T (+ bias[n])) (+ addend [m, n], laid out as y); steps are between rows. The
/// norm is an RMS norm, the activation the exact GELU.
template <class T>
struct ThinProduct {
  const T *x, *w, *bias, *addend;
  T* y;
  int64_t x_step, w_step, y_step;
  int64_t m, n, k;
  bool normed = false, gelu = false;
  const T* norm_weight = nullptr;
  double eps = 0;
};

/// Queues a product of few rows, as a linear while decoding has. False if it is of another kind, and nothing was
/// queued.
template <class T>
bool thin_product(const Launch& launch, const ThinProduct<T>& product);

}  // namespace monoid::cuda

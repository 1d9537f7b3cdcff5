#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstdint>

#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {

/// An operand of a product in memory: rows or columns `leading` elements apart, matrices of a batch `step` apart.
struct BlasLayout {
  bool by_columns = false;
  int64_t leading = 1, step = 0;
  friend auto operator<=>(const BlasLayout&, const BlasLayout&) = default;
};

/// Everything that decides which algorithm runs c = a b (+ bias[n]) (+ addend): the key of the cache of algorithms.
struct BlasProblem {
  DType input = DType::f32, output = DType::f32;
  bool tf32 = false;
  int64_t m = 0, n = 0, k = 0, batch = 1;
  BlasLayout a, b, c;
  bool adds_bias = false, adds_addend = false;
  friend auto operator<=>(const BlasProblem&, const BlasProblem&) = default;
};

struct BlasOperands {
  const void *a, *b, *bias, *addend;  // addend: laid out as c, may be c itself
  void* c;
};

/// Queues a product on cuBLASLt; c has rows. False if cuBLASLt has no algorithm for it, and nothing was queued.
bool blas_product(const Launch& launch, const BlasProblem& problem, const BlasOperands& operands);

}  // namespace monoid::cuda

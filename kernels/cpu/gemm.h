#pragma once

#include "monoid/kernels/product.h"

namespace monoid::cpu {

/// Axes over which a product repeats, and the step of each operand along them. Where c does not move (step 0) the
/// products are summed into it, in order.
struct GemmBatch {
  Shape extents;
  Strides a, b, c;
};

/// c = alpha a b + beta c + start, for every index of the batch; a [m, k], b [k, n], c [m, n], each with a unit step.
/// `start`, if it has data, is [m, n] too and usually a bias with row_step 0. beta = 0 does not read c. Parallel; the
/// result depends on the shapes only, never on the number of threads. T is float or double.
template <class T>
void gemm(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, T beta, const Matrix<T>& c,
          const GemmBatch& batch = {}, const Matrix<const T>& start = {});

/// The same of a product, whose addend is added in place of beta c.
template <class T>
void gemm(Product<T> product);

}  // namespace monoid::cpu

#pragma once

#include <cstdint>

#include "monoid/core/shape.h"

namespace monoid::cpu {

/// A strided view of rows x columns numbers; steps are in elements.
template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0, columns = 0;
  int64_t row_step = 0, column_step = 1;

  Matrix transposed() const { return {data, columns, rows, column_step, row_step}; }
  Matrix block(int64_t row, int64_t column, int64_t row_count, int64_t column_count) const {
    return {data + row * row_step + column * column_step, row_count, column_count, row_step, column_step};
  }
  Matrix shifted(int64_t elements) const { return {data + elements, rows, columns, row_step, column_step}; }
  operator Matrix<const T>() const { return {data, rows, columns, row_step, column_step}; }
};

/// Whether gemm takes this operand as it is: one of the two steps is 1 and the other does not make lines overlap.
template <class T>
bool has_unit_step(const Matrix<T>& x) {
  const auto lines = [](int64_t count, int64_t step, int64_t length, int64_t inner) {
    return (length <= 1 || inner == 1) && (count <= 1 || step >= length);
  };
  return lines(x.rows, x.row_step, x.columns, x.column_step) || lines(x.columns, x.column_step, x.rows, x.row_step);
}

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

}  // namespace monoid::cpu

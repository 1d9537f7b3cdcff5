#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "monoid/core/tensor.h"

// What a matrix product looks like to the code that runs it: strided views, and batch axes folded away where possible.

namespace monoid {

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

template <class T>
Matrix<T> last_two(T* data, const Tensor& x) {
  return {data, x.size(-2), x.size(-1), x.strides()[-2], x.strides()[-1]};
}

/// The same memory with the last two axes exchanged.
Tensor transposed(const Tensor& x);

/// Whether the elements of a row are neighbours, and rows do not overlap.
template <class T>
bool has_rows(const Matrix<T>& x) {
  return (x.columns <= 1 || x.column_step == 1) && (x.rows <= 1 || x.row_step >= x.columns);
}

/// Whether a product takes this operand as it is: one of the two steps is 1 and the other keeps lines apart.
template <class T>
bool has_unit_step(const Matrix<T>& x) {
  return has_rows(x) || has_rows(x.transposed());
}

/// An axis over which a product repeats, and the step of each operand along it.
struct BatchAxis {
  int64_t extent, a, b, c;
};

struct BatchOffsets {
  int64_t a = 0, b = 0, c = 0;
};

struct BatchAxes : std::vector<BatchAxis> {
  int64_t count() const;
  BatchOffsets offsets(int64_t index) const;
};

/// c = a b + bias + addend for every index of the moving axes, summed over the summed ones, along which c stands still.
template <class T>
struct Product {
  Matrix<const T> a, b;
  Matrix<T> c;
  Matrix<const T> bias;       // [m, n], usually with row_step 0; none without data
  const T* addend = nullptr;  // laid out as c
  BatchAxes moving, summed;

  int64_t m() const { return c.rows; }
  int64_t n() const { return c.columns; }
  int64_t k() const { return a.columns; }

  void add_axis(const BatchAxis& axis) {
    if (axis.extent != 1) (axis.c == 0 ? summed : moving).push_back(axis);
  }
  /// c^T = b^T a^T.
  void transpose();
  /// Makes batch axes part of the rows, the columns or k wherever the steps allow: [batch, m, k] x [k, n] is one
  /// product of batch * m rows, and the gradient of a weight over [batch, time] one product over batch * time.
  void fold();
};

/// The operands of a Matmul (kernels/matmul.h): each a view, or a copy where neither of the last two axes has step 1.
template <class T>
struct Operands {
  Tensor a, b;  // keep the copies
  Product<T> product;
};
template <class T>
Operands<T> matmul_operands(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c);

}  // namespace monoid

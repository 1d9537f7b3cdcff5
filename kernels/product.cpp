#include "monoid/kernels/product.h"

#include <algorithm>

namespace monoid {
namespace {

// Rows of x followed by rows of x one batch step further: the same matrix, taller?
template <class T>
bool stack_rows(Matrix<T>& x, int64_t extent, int64_t step) {
  if (x.rows != 1 && step != x.rows * x.row_step) return false;
  const Matrix<T> taller{x.data, x.rows * extent, x.columns, x.rows == 1 ? step : x.row_step, x.column_step};
  if (!has_unit_step(taller)) return false;
  x = taller;
  return true;
}

// Moves a batch axis along which b stands still into the rows.
template <class T>
bool fold_into_rows(Product<T>& p, const BatchAxis& axis) {
  if (axis.b != 0 || (p.bias.data && p.bias.row_step != 0)) return false;
  Matrix<const T> a = p.a;
  Matrix<T> c = p.c;
  if (!stack_rows(a, axis.extent, axis.a) || !stack_rows(c, axis.extent, axis.c)) return false;
  p.a = a;
  p.c = c;
  p.bias.rows = c.rows;
  return true;
}

// The same for a summed axis and k.
template <class T>
bool fold_into_inner(Product<T>& p, const BatchAxis& axis) {
  Matrix<const T> a = p.a.transposed(), b = p.b;
  if (!stack_rows(a, axis.extent, axis.a) || !stack_rows(b, axis.extent, axis.b)) return false;
  p.a = a.transposed();
  p.b = b;
  return true;
}

// x with a batch of 1 along the axes where it does not move, so that copying it copies each element once.
Tensor without_repeats(const Tensor& x) {
  Shape shape = x.shape();
  for (int axis = 0; axis < x.rank() - 2; ++axis) {
    if (x.strides()[axis] == 0 && shape[axis] > 1) shape[axis] = 1;
  }
  return x.as_strided(shape, x.strides(), x.offset());
}

template <class T>
Tensor with_unit_step(const Tensor& x) {
  return has_unit_step(last_two(x.data<T>(), x)) ? x : without_repeats(x).clone();
}

}  // namespace

Tensor transposed(const Tensor& x) {
  Shape shape = x.shape();
  Strides strides = x.strides();
  std::swap(shape[-1], shape[-2]);
  std::swap(strides[-1], strides[-2]);
  return x.as_strided(shape, strides, x.offset());
}

int64_t BatchAxes::count() const {
  int64_t product = 1;
  for (const BatchAxis& axis : *this) product *= axis.extent;
  return product;
}

BatchOffsets BatchAxes::offsets(int64_t index) const {
  BatchOffsets at;
  for (auto axis = rbegin(); axis != rend(); ++axis) {
    const int64_t i = index % axis->extent;
    index /= axis->extent;
    at.a += i * axis->a;
    at.b += i * axis->b;
    at.c += i * axis->c;
  }
  return at;
}

template <class T>
void Product<T>::transpose() {
  std::swap(a, b);
  for (Matrix<const T>* x : {&a, &b, &bias}) *x = x->transposed();
  c = c.transposed();
  for (BatchAxes* axes : {&moving, &summed}) {
    for (BatchAxis& axis : *axes) std::swap(axis.a, axis.b);
  }
}

template <class T>
void Product<T>::fold() {
  const auto fold_all = [](BatchAxes& axes, auto fold_one) {
    while (!axes.empty() && fold_one(axes.back())) axes.pop_back();
  };
  fold_all(moving, [&](const BatchAxis& axis) { return fold_into_rows(*this, axis); });
  transpose();
  fold_all(moving, [&](const BatchAxis& axis) { return fold_into_rows(*this, axis); });
  transpose();
  fold_all(summed, [&](const BatchAxis& axis) { return fold_into_inner(*this, axis); });
}

template <class T>
Operands<T> matmul_operands(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c) {
  Operands<T> operands{with_unit_step<T>(a), with_unit_step<T>(b), {}};
  const auto& [left, right, product] = operands;
  Product<T>& p = operands.product;
  p.a = last_two(left.template data<T>(), left);
  p.b = last_two(right.template data<T>(), right);
  p.c = last_two(c.data<T>(), c);
  if (bias.defined()) p.bias = {bias.data<T>(), c.size(-2), c.size(-1), 0, bias.strides()[0]};
  if (addend.defined()) p.addend = addend.data<T>();
  for (int axis = 0; axis < c.rank() - 2; ++axis) {
    const auto step = [axis](const Tensor& x) { return x.size(axis) == 1 ? 0 : x.strides()[axis]; };
    int64_t extent = c.size(axis) == 1 ? std::max(a.size(axis), b.size(axis)) : c.size(axis);
    if (a.size(axis) == 0 || b.size(axis) == 0) extent = 0;
    p.add_axis({extent, step(left), step(right), step(c)});
  }
  return operands;
}

template struct Product<float>;
template struct Product<double>;
template struct Product<bfloat16>;
template Operands<float> matmul_operands(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor&);
template Operands<double> matmul_operands(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor&);
template Operands<bfloat16> matmul_operands(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor&);

}  // namespace monoid

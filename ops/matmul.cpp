#include "monoid/ops/matmul.h"

#include "monoid/core/tape.h"
#include "monoid/kernels/bias_gelu.h"
#include "monoid/kernels/matmul.h"
#include "monoid/kernels/product.h"
#include "monoid/kernels/reduce.h"
#include "monoid/ops/rows.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// The same memory with leading axes of extent 1, as the kernel wants its operands.
Tensor with_rank(const Tensor& x, int rank) {
  Shape shape;
  Strides strides;
  for (int axis = x.rank(); axis < rank; ++axis) {
    shape.push_back(1);
    strides.push_back(0);
  }
  for (int axis = 0; axis < x.rank(); ++axis) {
    shape.push_back(x.size(axis));
    strides.push_back(x.strides()[axis]);
  }
  return x.as_strided(shape, strides, x.offset());
}

// sum of a b into a tensor of `shape`, over the leading axes that `shape` lacks or has with extent 1.
Tensor product(const Tensor& a, const Tensor& b, const Shape& shape, const Tensor& bias = {},
               const Tensor& addend = {}) {
  const int rank = std::max(a.rank(), b.rank());
  Shape aligned = shape;
  while (aligned.rank() < rank) aligned = aligned.inserted(0, 1);
  Tensor c = Tensor::empty(aligned, a.dtype(), a.device());
  kernels::matmul(with_rank(a, rank), with_rank(b, rank), bias,
                  addend.defined() ? with_rank(contiguous_or_copy(addend), rank) : addend, c);
  return c.view(shape);
}

// Rows a fixed step apart, whose sums are one product; a copy where they are not.
Tensor in_one_matrix(const Tensor& x) {
  if (x.rank() <= 2 || x.elements() == 0) return x;
  const Tensor matrix = reshape(x, {-1, x.size(-1)});
  return matrix.storage() == x.storage() ? x : matrix.view(x.shape());
}

Tensor column_sums(const Tensor& x) {
  Shape shape;
  while (shape.rank() < x.rank() - 1) shape.push_back(1);
  shape.push_back(x.size(-1));
  Tensor sums = Tensor::empty(shape, x.dtype(), x.device());
  kernels::sum(x, sums);
  return sums.view({x.size(-1)});
}

// Checks the operands of a linear and returns the shape of its result.
Shape linear_shape(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_defined(op, "the input", x);
  check_defined(op, "the weight", weight);
  check_same_device_and_dtype(op, x, weight);
  check(weight.rank() == 2, op, ": weight is ", describe(weight), ", wanted [out, in]");
  check(x.rank() >= 1 && x.size(-1) == weight.size(1), op, ": input is ", describe(x), ", wanted [..., ",
        weight.size(1), "] for weight ", describe(weight));
  if (bias.defined()) {
    check_same_device_and_dtype(op, x, bias);
    check_shape(op, "bias", bias, {weight.size(0)});
  }
  return x.shape().with(-1, weight.size(0));
}

// Gradients of x and weight, where wanted, from that of the product of rows and weight, on top of what there is of
// them.
Tensors product_gradients(const Tensor& x, const Tensor& rows, const Tensor& weight, const Tensor& dy_rows,
                          Tensors& so_far) {
  const auto gradient = [&](const Tensor& of, size_t input, const Tensor& a, const Tensor& b, const Shape& shape) {
    if (!of.requires_grad()) return Tensor();
    return product(a, b, shape, {}, std::exchange(so_far[input], {})).view(of.shape());
  };
  return {gradient(x, 0, dy_rows, weight, rows.shape()),
          gradient(weight, 1, transposed(dy_rows), rows, weight.shape())};
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_defined("matmul", "the left operand", a);
  check_defined("matmul", "the right operand", b);
  check_same_device_and_dtype("matmul", a, b);
  check(a.rank() >= 2 && b.rank() >= 2, "matmul: wants matrices, got ", describe(a), " and ", describe(b),
        "; unsqueeze() a vector to say whether it is a row or a column");
  check(a.size(-1) == b.size(-2), "matmul: ", describe(a), " has ", a.size(-1), " columns but ", describe(b), " has ",
        b.size(-2), " rows; transpose() one of them?");
  const auto batch = [](const Tensor& x) { return x.shape().without(-1).without(-1); };
  Shape shape = broadcast_shapes("matmul", batch(a), batch(b));
  shape.push_back(a.size(-2));
  shape.push_back(b.size(-1));
  const Tensor c = product(a, b, shape);
  Tape::record("matmul", {a, b}, {c}, [a, b](const Tensors& dc) -> Tensors {
    return {a.requires_grad() ? product(dc[0], transposed(b), a.shape()) : Tensor(),
            b.requires_grad() ? product(transposed(a), dc[0], b.shape()) : Tensor()};
  });
  return c;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual) {
  const Shape shape = linear_shape("linear", x, weight, bias);
  Tensor addend;
  if (residual.defined()) {
    check_same_device_and_dtype("linear", x, residual);
    check_shape("linear", "residual", residual, shape);
    addend = residual.detach();
  }
  const Tensor rows = with_rank(x, 2);
  const Tensor y = product(rows, transposed(weight), rows.shape().with(-1, weight.size(0)), bias, addend).view(shape);
  Tape::record("linear", {x, weight, bias, residual}, {y},
               [x, rows, weight, bias, residual](const Tensors& dy, Tensors& so_far) {
                 const Tensor dy_rows = with_rank(weight.requires_grad() ? in_one_matrix(dy[0]) : dy[0], 2);
                 Tensors gradients = product_gradients(x, rows, weight, dy_rows, so_far);
                 gradients.push_back(bias.requires_grad() ? column_sums(dy_rows) : Tensor());
                 gradients.push_back(residual.requires_grad() ? dy[0] : Tensor());
                 return gradients;
               });
  return y;
}

Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Shape shape = linear_shape("linear_gelu", x, weight, bias);
  const Tensor rows = with_rank(x, 2), offset = bias.defined() ? contiguous_or_copy(bias) : bias;
  const Tensor hidden = product(rows, transposed(weight), rows.shape().with(-1, weight.size(0)));
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  kernels::bias_gelu(hidden.view(shape), offset, y);
  Tape::record("linear_gelu", {x, weight, bias}, {y},
               [x, rows, weight, bias, offset, hidden](const Tensors& dy, Tensors& so_far) {
                 Tensor dhidden = Tensor::empty_like(hidden),
                        dbias = bias.requires_grad() ? Tensor::empty_like(offset) : Tensor();
                 kernels::bias_gelu_gradient(hidden, offset, contiguous_or_copy(dy[0]).view(hidden.shape()), dhidden,
                                             dbias);
                 Tensors gradients = product_gradients(x, rows, weight, dhidden, so_far);
                 gradients.push_back(dbias);
                 return gradients;
               });
  return y;
}

}  // namespace monoid

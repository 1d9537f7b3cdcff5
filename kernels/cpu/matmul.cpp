#include "monoid/kernels/matmul.h"

#include "monoid/kernels/cpu/gemm.h"

namespace monoid::cpu {

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c) {
  dispatch_real("matmul", c.dtype(), [&]<class T>() {
    const Operands<T> operands = matmul_operands<T>(a, b, bias, addend, c);
    gemm(operands.product);
  });
}

void linear_gradient(const Tensor& dy, const Tensor& x, Tensor& dweight, Tensor& dbias) {
  matmul(transposed(dy), x, {}, {}, dweight);
  // Column sums are the product with a row of ones.
  matmul(Tensor::ones(dy.shape().with(-1, dy.size(-2)).with(-2, 1), dy.dtype()), dy, {}, {}, dbias);
}

}  // namespace monoid::cpu

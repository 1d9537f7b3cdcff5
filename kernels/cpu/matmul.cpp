#include "monoid/kernels/matmul.h"

#include "monoid/kernels/cpu/gemm.h"

namespace monoid::cpu {

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c) {
  dispatch_real("matmul", c.dtype(), [&]<class T>() {
    const Operands<T> operands = matmul_operands<T>(a, b, bias, addend, c);
    gemm(operands.product);
  });
}

}  // namespace monoid::cpu

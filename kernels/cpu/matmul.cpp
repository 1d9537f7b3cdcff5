// Tensors to strided matrices: transposes and row strides go to gemm as they are; an operand is copied only if neither
// of its last two axes is contiguous.

#include "monoid/kernels/matmul.h"

#include "monoid/kernels/cpu/gemm.h"

namespace monoid::cpu {
namespace {

template <class T>
Matrix<T> last_two(T* data, const Tensor& x) {
  return {data, x.size(-2), x.size(-1), x.strides()[-2], x.strides()[-1]};
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

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& c) {
  dispatch_real("matmul", c.dtype(), [&]<class T>() {
    const Tensor left = with_unit_step<T>(a), right = with_unit_step<T>(b);
    GemmBatch batch;
    for (int axis = 0; axis < c.rank() - 2; ++axis) {
      const auto step = [&](const Tensor& x) { return x.size(axis) == 1 ? 0 : x.strides()[axis]; };
      batch.extents.push_back(c.size(axis) == 1 ? std::max(a.size(axis), b.size(axis)) : c.size(axis));
      if (a.size(axis) == 0 || b.size(axis) == 0) batch.extents[axis] = 0;
      batch.a.push_back(step(left));
      batch.b.push_back(step(right));
      batch.c.push_back(step(c));
    }
    Matrix<const T> start;
    if (bias.defined()) start = {bias.data<T>(), c.size(-2), c.size(-1), 0, bias.strides()[0]};
    gemm(T(1), last_two(left.data<T>(), left), last_two(right.data<T>(), right), T(0), last_two(c.data<T>(), c), batch,
         start);
  });
}

}  // namespace monoid::cpu

// y = gelu(x + bias) and its gradients, block by block through the first-level cache.

#include "monoid/kernels/bias_gelu.h"

#include "monoid/kernels/cpu/blocks.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/functions.h"
#include "monoid/kernels/reduce.h"

namespace monoid::cpu {
namespace {

struct None {};

template <class T>
BlockReader<T> bias_reader(const Tensor& bias, const Tensor& x) {
  return BlockReader<T>(bias.defined() ? bias : Tensor::zeros({1}, x.dtype()), x.shape());
}

}  // namespace

void bias_gelu(const Tensor& x, const Tensor& bias, Tensor& y) {
  dispatch_real("bias_gelu", x.dtype(), [&]<class T>() {
    T* const to = y.data<T>();
    for_each_block(
        x.shape(),
        [=](int64_t begin, int64_t count, const T* in, const T* offset) {
          T* out = to + begin;
          vectorised([=] {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i)
              out[i] = functions::Gelu::value(VectorMath(), in[i] + offset[i], None());
          });
        },
        BlockReader<T>(x, x.shape()), bias_reader<T>(bias, x));
  });
}

void bias_gelu_gradient(const Tensor& x, const Tensor& bias, const Tensor& dy, Tensor& dx, Tensor& dbias) {
  dispatch_real("bias_gelu_gradient", x.dtype(), [&]<class T>() {
    T* const to = dx.data<T>();
    for_each_block(
        x.shape(),
        [=](int64_t begin, int64_t count, const T* in, const T* offset, const T* gradient) {
          T* out = to + begin;
          vectorised([=] {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i)
              out[i] = functions::Gelu::gradient(VectorMath(), gradient[i], in[i] + offset[i], None());
          });
        },
        BlockReader<T>(x, x.shape()), bias_reader<T>(bias, x), BlockReader<T>(dy, x.shape()));
  });
  if (!dbias.defined()) return;
  const Tensor rows = dx.view({dx.shape().without(-1).elements(), dx.size(-1)});
  Tensor sums = dbias.view({1, dx.size(-1)});
  sum(rows, sums);
}

}  // namespace monoid::cpu

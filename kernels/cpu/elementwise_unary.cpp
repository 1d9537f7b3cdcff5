// y = f(x) and dx = f'(x) dy: one loop for the values and one for the gradients, over the table of functions.

#include "monoid/kernels/cpu/blocks.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/elementwise.h"

namespace monoid::cpu {
namespace {

template <class T>
struct Parameters {
  explicit Parameters(Scalars scalars) : first(static_cast<T>(scalars.first)), second(static_cast<T>(scalars.second)) {}
  T first, second;
};

}  // namespace

void unary(UnaryFunction function, const Tensor& x, Scalars scalars, Tensor& y) {
  dispatch_real("unary", x.dtype(), [&]<class T>() {
    const BlockReader<T> from(x, y.shape());
    const Parameters<T> p(scalars);
    T* to = y.data<T>();
    dispatch_function(function, [&]<class Function>() {
      for_each_block(
          y.shape(),
          [=](int64_t begin, int64_t count, const T* in) {
            T* out = to + begin;
            vectorised([=] {
#pragma GCC ivdep
              for (int64_t i = 0; i < count; ++i) out[i] = Function::value(VectorMath(), in[i], p);
            });
          },
          from);
    });
  });
}

void unary_gradient(UnaryFunction function, const Tensor& saved, const Tensor& dy, Scalars scalars, Tensor& dx) {
  dispatch_real("unary_gradient", dy.dtype(), [&]<class T>() {
    const BlockReader<T> saved_from(saved, dx.shape()), dy_from(dy, dx.shape());
    const Parameters<T> p(scalars);
    T* to = dx.data<T>();
    dispatch_function(function, [&]<class Function>() {
      for_each_block(
          dx.shape(),
          [=](int64_t begin, int64_t count, const T* in, const T* gradient) {
            T* out = to + begin;
            vectorised([=] {
#pragma GCC ivdep
              for (int64_t i = 0; i < count; ++i) out[i] = Function::gradient(VectorMath(), gradient[i], in[i], p);
            });
          },
          saved_from, dy_from);
    });
  });
}

}  // namespace monoid::cpu

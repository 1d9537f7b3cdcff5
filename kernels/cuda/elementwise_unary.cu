// y = f(x) and dx = f'(x) dy: the map of map.cuh over the table of functions.

#include "monoid/kernels/cuda/device/math.cuh"
#include "monoid/kernels/cuda/map.cuh"
#include "monoid/kernels/elementwise.h"

namespace monoid::cuda {
namespace {

struct Parameters {
  explicit Parameters(Scalars scalars)
      : first(static_cast<float>(scalars.first)), second(static_cast<float>(scalars.second)) {}
  float first, second;
};

template <class Function, class Math>
struct Value {
  Parameters p;
  __device__ float operator()(float x) const { return Function::value(Math(), x, p); }
};

template <class Function, class Math>
struct Gradient {
  Parameters p;
  __device__ float operator()(float saved, float dy) const { return Function::gradient(Math(), dy, saved, p); }
};

}  // namespace

void unary(UnaryFunction function, const Tensor& x, Scalars scalars, Tensor& y) {
  dispatch_storage("unary", x.dtype(), [&]<class T>() {
    dispatch_function(function,
                      [&]<class F>() { map<T, T>("unary", Value<F, MathFor<T>>{Parameters(scalars)}, y, x); });
  });
}

void unary_gradient(UnaryFunction function, const Tensor& saved, const Tensor& dy, Scalars scalars, Tensor& dx) {
  dispatch_storage("unary_gradient", dy.dtype(), [&]<class T>() {
    dispatch_function(function, [&]<class F>() {
      map<T, T, T>("unary_gradient", Gradient<F, MathFor<T>>{Parameters(scalars)}, dx, saved, dy);
    });
  });
}

}  // namespace monoid::cuda

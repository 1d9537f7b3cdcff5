// out = f(a, b), comparisons and selection with broadcasting, and both gradients of f in one pass over the operands.

#include "monoid/kernels/cuda/device/math.cuh"
#include "monoid/kernels/cuda/map.cuh"
#include "monoid/kernels/elementwise.h"

namespace monoid::cuda {
namespace {

template <class Function, class Math>
struct Value {
  __device__ float operator()(float a, float b) const { return Function::value(Math(), a, b); }
};

template <class Function, class Math>
struct Gradients {
  __device__ Several<float, 2> operator()(float a, float b, float dy) const {
    return {Function::gradient_a(Math(), dy, a, b), Function::gradient_b(Math(), dy, a, b)};
  }
};

template <class Function>
struct Holds {
  template <class T>
  __device__ bool operator()(T a, T b) const {
    return Function::value(a, b);
  }
};

struct Select {
  template <class T>
  __device__ T operator()(uint8_t first, T a, T b) const {
    return first ? a : b;
  }
};

}  // namespace

void binary(BinaryFunction function, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_storage("binary", out.dtype(), [&]<class T>() {
    dispatch_function(function, [&]<class F>() { map<T, T, T>("binary", Value<F, MathFor<T>>(), out, a, b); });
  });
}

void binary_gradient(BinaryFunction function, const Tensor& a, const Tensor& b, const Tensor& dy, Tensor& da,
                     Tensor& db) {
  const Launch launch("binary_gradient", dy);
  dispatch_storage("binary_gradient", dy.dtype(), [&]<class T>() {
    const Outputs<T, 2> out{{address_of<T>(da), address_of<T>(db)}};
    dispatch_function(function, [&]<class F>() {
      map_onto<T, T, T>(launch, Gradients<F, MathFor<T>>(), dy.shape(), contiguous_strides(dy.shape()), out, a, b, dy);
    });
  });
}

void compare(Comparison comparison, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_any(a.dtype(), [&]<class T>() {
    dispatch_function(comparison, [&]<class F>() { map<bool, T, T>("compare", Holds<F>(), out, a, b); });
  });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_bits(out.dtype(), [&]<class T>() { map<T, uint8_t, T, T>("where", Select(), out, condition, a, b); });
}

}  // namespace monoid::cuda

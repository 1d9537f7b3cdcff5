// y = f(x) and dx = f'(x) dy: one loop for the values and one for the gradients, over the table of functions.

#include "monoid/kernels/cpu/blocks.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/elementwise.h"

namespace monoid::cpu {
namespace {

struct VectorMath {
  static auto exp(auto x) { return cpu::exp(x); }
  static auto log(auto x) { return cpu::log(x); }
  static auto log1p(auto x) { return cpu::log1p(x); }
  static auto sigmoid(auto x) { return cpu::sigmoid(x); }
  static auto softplus(auto x) { return cpu::softplus(x); }
  static auto tanh(auto x) { return cpu::tanh(x); }
  static auto erf(auto x) { return cpu::erf(x); }
  static auto gaussian(auto x) { return cpu::gaussian(x); }
  static auto normal_cdf(auto x, auto bell) { return cpu::normal_cdf(x, bell); }
  static auto at_least(auto x, auto low) { return x < low ? low : x; }
  static auto within(auto x, auto limit) {
    const auto above = at_least(x, -limit);
    return above > limit ? limit : above;
  }
  static auto sqrt(auto x) { return std::sqrt(x); }
  static auto abs(auto x) { return std::abs(x); }
  // Rare enough to stay library calls, which reduce any argument exactly.
  static auto sin(auto x) { return std::sin(x); }
  static auto cos(auto x) { return std::cos(x); }
  static auto pow(auto x, auto exponent) { return std::pow(x, exponent); }
};

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

// out = f(a, b), comparisons and selection with broadcasting, and both gradients of f in one pass over the operands.

#include "monoid/kernels/cpu/blocks.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/elementwise.h"

namespace monoid::cpu {
namespace {

// out[i] = function(operands[i]...): the one loop of this file.
template <class Out, class Function, class... T>
void map(Tensor& out, Function function, const BlockReader<T>&... operands) {
  Out* to = out.data<Out>();
  for_each_block(
      out.shape(),
      [=](int64_t begin, int64_t count, const T*... in) {
        Out* target = to + begin;
        vectorised([=] {
#pragma GCC ivdep
          for (int64_t i = 0; i < count; ++i) target[i] = function(in[i]...);
        });
      },
      operands...);
}

}  // namespace

void binary(BinaryFunction function, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_real("binary", out.dtype(), [&]<class T>() {
    const BlockReader<T> from_a(a, out.shape()), from_b(b, out.shape());
    dispatch_function(function, [&]<class Function>() {
      map<T>(
          out, [](T x, T y) { return Function::value(VectorMath(), x, y); }, from_a, from_b);
    });
  });
}

void binary_gradient(BinaryFunction function, const Tensor& a, const Tensor& b, const Tensor& dy, Tensor& da,
                     Tensor& db) {
  dispatch_real("binary_gradient", dy.dtype(), [&]<class T>() {
    const BlockReader<T> from_a(a, dy.shape()), from_b(b, dy.shape()), from_dy(dy, dy.shape());
    T* const to_a = da.defined() ? da.data<T>() : nullptr;
    T* const to_b = db.defined() ? db.data<T>() : nullptr;
    dispatch_function(function, [&]<class Function>() {
      for_each_block(
          dy.shape(),
          [=](int64_t begin, int64_t count, const T* x, const T* y, const T* gradient) {
            T* const out_a = to_a + begin;
            T* const out_b = to_b + begin;
            const auto run = [=](auto a_wanted, auto b_wanted) {
              vectorised([=] {
#pragma GCC ivdep
                for (int64_t i = 0; i < count; ++i) {
                  const T u = x[i], v = y[i], w = gradient[i];
                  if constexpr (a_wanted) out_a[i] = Function::gradient_a(VectorMath(), w, u, v);
                  if constexpr (b_wanted) out_b[i] = Function::gradient_b(VectorMath(), w, u, v);
                }
              });
            };
            if (to_a && to_b) {
              run(std::true_type(), std::true_type());
            } else if (to_a) {
              run(std::true_type(), std::false_type());
            } else if (to_b) {
              run(std::false_type(), std::true_type());
            }
          },
          from_a, from_b, from_dy);
    });
  });
}

void compare(Comparison comparison, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_any(a.dtype(), [&]<class T>() {
    if constexpr (std::is_same_v<T, bfloat16>) {
      fail("compare: bf16 is storage only on the CPU; cast() the operands first");
    } else {
      const BlockReader<T> from_a(a, out.shape()), from_b(b, out.shape());
      dispatch_function(comparison, [&]<class Function>() {
        map<bool>(
            out, [](T x, T y) { return Function::value(x, y); }, from_a, from_b);
      });
    }
  });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_any(out.dtype(), [&]<class T>() {
    const BlockReader<bool> from_condition(condition, out.shape());
    const BlockReader<T> from_a(a, out.shape()), from_b(b, out.shape());
    map<T>(
        out, [](bool first, T x, T y) { return first ? x : y; }, from_condition, from_a, from_b);
  });
}

}  // namespace monoid::cpu

// value * gelu(gate) and its gradient, row by row. Floor: x (and dy) read once, the result written once.

#include "monoid/kernels/gated_gelu.h"

#include <algorithm>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/functions.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements of a piece of work

struct None {};

// Calls row(index) for every row, in pieces of some size.
template <class Row>
void for_rows_of(const Tensor& x, Row&& row) {
  const int64_t rows = x.shape().without(-1).elements(), grain = std::max<int64_t>(1, kGrain / x.size(-1));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) row(index);
  });
}

}  // namespace

void gated_gelu(const Tensor& x, Tensor& y) {
  const int64_t channels = y.size(-1);
  if (y.elements() == 0) return;
  dispatch_real("gated_gelu", x.dtype(), [&]<class T>() {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_rows_of(x, [=](int64_t index) {
      const T *value = from + 2 * index * channels, *gate = value + channels;
      T* out = to + index * channels;
      vectorised([=] {
#pragma GCC ivdep
        for (int64_t i = 0; i < channels; ++i)
          out[i] = value[i] * functions::Gelu::value(VectorMath(), gate[i], None());
      });
    });
  });
}

void gated_gelu_gradient(const Tensor& x, const Tensor& dy, Tensor& dx) {
  const int64_t channels = dy.size(-1);
  if (dy.elements() == 0) return;
  dispatch_real("gated_gelu_gradient", x.dtype(), [&]<class T>() {
    const T *from = x.data<T>(), *gradient = dy.data<T>();
    T* to = dx.data<T>();
    for_rows_of(x, [=](int64_t index) {
      const T *value = from + 2 * index * channels, *gate = value + channels, *dout = gradient + index * channels;
      T *dvalue = to + 2 * index * channels, *dgate = dvalue + channels;
      vectorised([=] {
#pragma GCC ivdep
        for (int64_t i = 0; i < channels; ++i) {
          dvalue[i] = dout[i] * functions::Gelu::value(VectorMath(), gate[i], None());
          dgate[i] = functions::Gelu::gradient(VectorMath(), dout[i] * value[i], gate[i], None());
        }
      });
    });
  });
}

}  // namespace monoid::cpu

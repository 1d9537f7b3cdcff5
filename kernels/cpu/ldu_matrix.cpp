// X = (strict_lower(M) + diag(d)) (diag(d) + strict_upper(M)), matrix by matrix; the factors are made again for the
// gradient. Floor: a matrix read and one written, or two read and one written.

#include "monoid/core/memory.h"
#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/small_matrix.h"
#include "monoid/kernels/matrix_scan.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kTaskProducts = 1 << 20;

/// Calls body(index of a matrix, scratch) for all of them; `scratch` is room for five.
template <class T, class Matrix, class Body>
void for_each_matrix(const Matrix& matrix, int64_t count, const Body& body) {
  const int64_t size = matrix.size(), work = std::max<int64_t>(1, size * matrix.order());
  parallel_for(count, std::max<int64_t>(1, kTaskProducts / work), [&](int64_t begin, int64_t end) {
    Storage storage(static_cast<size_t>(5 * size) * sizeof(T), kCpu);
    T* scratch = static_cast<T*>(storage.data());
    matrix.run([&] {
      for (int64_t i = begin; i < end; ++i) body(i, scratch);
    });
  });
}

}  // namespace

void ldu_matrix(const Tensor& m, Tensor& x) {
  const int64_t step = m.rank() > 2 ? m.strides()[-3] : 0, count = x.shape().without(-1).without(-1).elements();
  dispatch_real("ldu_matrix", m.dtype(), [&]<class T>() {
    with_small_matrix<T>(m.size(-1), [&]<class Matrix>(const Matrix& matrix) {
      const int64_t size = matrix.size();
      const T* from = m.data<T>();
      T* to = x.data<T>();
      for_each_matrix<T>(matrix, count, [=](int64_t i, T* scratch) {
        ldu_factors(matrix, from + i * step, scratch, scratch + size);
        matrix.multiply(scratch, scratch + size, to + i * size);
      });
    });
  });
}

void ldu_matrix_gradient(const Tensor& m, const Tensor& x_cotangent, Tensor& m_gradient) {
  const int64_t step = m.rank() > 2 ? m.strides()[-3] : 0,
                count = m_gradient.shape().without(-1).without(-1).elements();
  dispatch_real("ldu_matrix", m.dtype(), [&]<class T>() {
    with_small_matrix<T>(m.size(-1), [&]<class Matrix>(const Matrix& matrix) {
      const int64_t size = matrix.size();
      const T *from = m.data<T>(), *cotangent = x_cotangent.data<T>();
      T* to = m_gradient.data<T>();
      for_each_matrix<T>(matrix, count, [=](int64_t i, T* scratch) {
        T *lower = scratch, *upper = lower + size, *turned = upper + size;
        ldu_factors(matrix, from + i * step, lower, upper);
        ldu_gradient(matrix, lower, upper, cotangent + i * size, to + i * size, turned, turned + size,
                     turned + 2 * size);
      });
    });
  });
}

}  // namespace monoid::cpu

#pragma once

#include <cstdint>
#include <string>

namespace monoid::cpu {

/// c[m, n] += alpha * op(a)[m, k] op(b)[k, n], row-major with leading dimensions, on the calling thread only; safe from
/// several threads at once. An Error says which package to install if there is no OpenBLAS. T is float or double.
template <class T>
void blas_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
               const T* b, int64_t ldb, T* c, int64_t ldc);

/// "OpenBLAS 0.3.21 (SkylakeX)", or why there is none.
std::string blas_description();

}  // namespace monoid::cpu

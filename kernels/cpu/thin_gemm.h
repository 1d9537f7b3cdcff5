#pragma once

#include "monoid/kernels/cpu/gemm.h"

namespace monoid::cpu {

/// Up to this many rows of a, thin_gemm beats packing b for BLAS.
inline constexpr int64_t kThinRows = 8;

/// c += alpha a b on the calling thread, for a of few rows: b is read once, straight from memory. b needs a unit step,
/// a and c take any.
template <class T>
void thin_gemm(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c);

}  // namespace monoid::cpu

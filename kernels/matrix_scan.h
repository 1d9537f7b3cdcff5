#pragma once

#include <cstdint>

#include "monoid/core/kernel.h"

namespace monoid {

/// How the matrices X of a scan come out of the tensor it reads.
enum class MatrixForm {
  plain,  // they are its matrices
  ldu,    // X = (strict_lower(M) + diag(d)) (diag(d) + strict_upper(M)), d = exp((diag(M) - mean(diag(M))) / 2)
};

/// Whether a scan may cut time into stretches that run at once, or must meet it one step after the other.
enum class TimeCut { allowed, never };

// Scans of matrices [batch, time, head, order, order] with a state of [batch, head, order, order]: rows of a matrix are
// contiguous and lie side by side, the other axes have any positive strides. What a kernel writes is contiguous. States
// `initial` and `final` and their gradients are f32 where sequences are stored in bf16, else of the same dtype.
// `initial` may be undefined: the identity. A gradient kernel may get undefined cotangents (zero) and must get an
// undefined `initial_gradient` where there is no initial.

/// states_t = states_{t-1} X_t; final is the last of them.
using MatrixScan = void(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final, MatrixForm form,
                        TimeCut cut);
using MatrixScanGradient = void(const Tensor& x, const Tensor& initial, const Tensor& states,
                                const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& x_gradient,
                                Tensor& initial_gradient, MatrixForm form, TimeCut cut);

/// The X of MatrixForm::ldu. m [..., order, order] has contiguous matrices side by side, one stride between matrices.
using LduMatrix = void(const Tensor& m, Tensor& x);
using LduMatrixGradient = void(const Tensor& m, const Tensor& x_cotangent, Tensor& m_gradient);

/// Where the states of a scan stopped being finite numbers.
struct MatrixOverflow {
  int64_t batch = 0, head = 0;
  int64_t time = -1;  // a step by which it had happened, less than kOverflowStretch late; -1: it did not happen
};
inline constexpr int64_t kOverflowStretch = 64;

/// The earliest one in time that kernels on the device of `somewhere` have met since this was last asked. Waits for
/// what is queued there.
using TakeMatrixOverflow = void(const Tensor& somewhere, MatrixOverflow& found);

namespace kernels {
inline constinit Kernel<MatrixScan> matrix_scan{"matrix_scan"};
inline constinit Kernel<MatrixScanGradient> matrix_scan_gradient{"matrix_scan_gradient"};
inline constinit Kernel<LduMatrix> ldu_matrix{"ldu_matrix"};
inline constinit Kernel<LduMatrixGradient> ldu_matrix_gradient{"ldu_matrix_gradient"};
inline constinit Kernel<TakeMatrixOverflow> take_matrix_overflow{"take_matrix_overflow"};
}  // namespace kernels

namespace cpu {
MatrixScan matrix_scan;
MatrixScanGradient matrix_scan_gradient;
LduMatrix ldu_matrix;
LduMatrixGradient ldu_matrix_gradient;
TakeMatrixOverflow take_matrix_overflow;
}  // namespace cpu

namespace cuda {
MatrixScan matrix_scan;
MatrixScanGradient matrix_scan_gradient;
LduMatrix ldu_matrix;
LduMatrixGradient ldu_matrix_gradient;
TakeMatrixOverflow take_matrix_overflow;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include <optional>
#include <string>

#include "monoid/kernels/matrix_scan.h"
#include "monoid/ops/scan.h"

namespace monoid {

/// How a scan of matrices is put together. All agree to rounding, forward and backward; all but the first are there to
/// be studied and compared (`bench --filter matrix_scan/algorithms`).
enum class MatrixScanAlgorithm {
  /// One kernel that reads and writes each matrix once. Time is cut into stretches where the chains (batch x head)
  /// alone
  /// do not fill the device: products of stretches, the state folded through them in order, the stretches replayed.
  chunked,
  /// One step after the other: as many steps as time in a row, and no product more.
  sequential,
  /// Neighbours in pairs, the pairs scanned by the same rule, then the steps between: 2 log2(time) rounds of batched
  /// products, about twice the work. (Brent and Kung, 1982)
  brent_kung,
  /// Every step times the product of the 1, 2, 4, ... steps before it: log2(time) rounds, log2(time) times the work.
  /// (Hillis and Steele, 1986)
  hillis_steele,
};

// States are f32 inside whatever is stored, never bf16: a product of rounded states is off by 6% and more after a
// thousand steps. Where matrices are bf16, so are `states`, each rounded once, while `final` is f32; `initial` may be
// either. Matrices are [batch, time, head, order, order], as strided views if need be as long as each matrix is
// contiguous; states without time are [batch, head, order, order]. Any order; 2, 4, 8, 16 and 32 are fast.

/// states_t = states_{t-1} x_t from the initial state, or from the identity: the associative scan of the matrix
/// product. Products may leave the range of f32: states are then infinite and stay so, and NaN where an infinity meets
/// a 0 or its opposite, never before; take_matrix_overflow tells.
ScanResult matrix_scan(const Tensor& x, const Tensor& initial = {},
                       MatrixScanAlgorithm algorithm = MatrixScanAlgorithm::chunked);

/// X = (strict_lower(M) + diag(d)) (diag(d) + strict_upper(M)) with d = exp((diag(M) - mean(diag(M))) / 2), so that
/// det X = 1: the matrices of the matrix recurrent unit. m is [..., order, order].
Tensor ldu_matrix(const Tensor& m);

/// matrix_scan(ldu_matrix(m), initial) without X, which is made again for the gradient.
ScanResult mru_scan(const Tensor& m, const Tensor& initial = {});

/// The earliest time at which a state of a scan on `device` left the range of its numbers since this was last asked, if
/// any did, chunked and sequential scans only. Waits for the device: ask where the loss is read anyway. Not an error,
/// because a training step that overflows shows in its loss, and what to do is the trainer's to say.
std::optional<MatrixOverflow> take_matrix_overflow(Device device);
/// That as a sentence: what happened, where, and what to do.
std::string describe(const MatrixOverflow& overflow);

}  // namespace monoid

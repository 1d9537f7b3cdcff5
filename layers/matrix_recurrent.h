#pragma once

#include "monoid/layers/dropout.h"
#include "monoid/layers/linear.h"
#include "monoid/layers/padding.h"
#include "monoid/layers/state.h"

namespace monoid {

/// The arguments of mikayahlevi/mru-lm's mru layer.
struct MatrixRecurrentOptions {
  int64_t channels = 0;
  int64_t heads = 1;
  int64_t state_size = 0;  // elements of the matrices of all heads together
  double dropout = 0;      // of what the matrices are made from, and of the output
  double out_deviation = 0.02;

  /// Of a head's square matrix: sqrt(state_size / heads).
  int64_t order() const;
  /// What a row of a matrix becomes in the output.
  int64_t chunk() const { return channels / (heads * order()); }
  /// Elements of all parameters.
  int64_t parameters() const;
  /// Throws an Error that names `owner` and the first value out of range.
  void validate(const char* owner) const;
};

/// The matrix recurrent unit (github.com/mikayahlevi/mru-lm). M = to_matrices(x), a square matrix a head, becomes X of
/// determinant 1 (see ldu_matrix), H_t = H_{t-1} X_t, and the rows of H times from_matrices [head, order, chunk], side
/// by side, go through to_out. to_matrices starts from 0, so that every H starts as the identity.
class MatrixRecurrent : public Module {
 public:
  MatrixRecurrent(const MatrixRecurrentOptions& options, Generator& init);

  /// x [batch, time, channels], initial [batch, head, order, order] or none for the identity -> output like x (plus a
  /// residual of that shape if given), and the last H, f32 for bf16, which padding leaves as it is.
  OutputAndState forward(const Tensor& x, const Tensor& initial = {}, const Tensor& residual = {},
                         Generator* dropout = nullptr, const Padding& padding = {}) const;
  /// The shape of its state.
  Shape state_shape(int64_t batch) const;
  /// What makes the matrices: mru-lm trains it at a learning rate and a limit of its own.
  const Tensor& to_matrices() const { return to_matrices_; }
  void visit(Visitor& visitor) override;

 private:
  bool folds(int64_t steps) const;
  Tensor folded() const;

  MatrixRecurrentOptions options_;
  Tensor to_matrices_, from_matrices_, to_out_;
  Dropout dropout_;
};

}  // namespace monoid

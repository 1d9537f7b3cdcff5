#pragma once

#include "monoid/layers/min_gru.h"

namespace monoid {

/// minLSTM (Feng et al., 2024), its gates normalised to sum to one: [hidden | f | i] = to_hidden_and_f_i_gate(x),
/// f' = sigmoid(f) / (sigmoid(f) + sigmoid(i)), i' = 1 - f', h_t = f'_t h_{t-1} + i'_t g(hidden_t), g as in MinGru.
class MinLstm : public Module {
 public:
  MinLstm(const MinRnnOptions& options, Generator& init);

  /// Shapes as in MinGru.
  OutputAndState forward(const Tensor& x, const Tensor& initial = {}, const Tensor& residual = {},
                         const Padding& padding = {}) const;
  /// x + forward(norm(x), initial).
  OutputAndState on_stream(const RmsNorm& norm, const Tensor& x, const Tensor& initial = {},
                           const Padding& padding = {}) const;
  void visit(Visitor& visitor) override;

 private:
  OutputAndState mixed(const Tensor& packed, const Tensor& initial, const Tensor& residual,
                       const Padding& padding) const;

  Linear to_hidden_and_f_i_gate_;
  std::optional<Linear> to_out_;
};

}  // namespace monoid

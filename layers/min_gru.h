#pragma once

#include <optional>

#include "monoid/layers/linear.h"
#include "monoid/layers/padding.h"
#include "monoid/layers/state.h"

namespace monoid {

/// The widths of a minimal recurrent layer: channels in and out, `inner` in the recurrence.
struct MinRnnOptions {
  int64_t channels = 0;
  int64_t inner = 0;
  Bias bias = Bias::none;                // of the projection into the recurrence
  std::optional<bool> project_out = {};  // an inner -> channels projection; by default where the widths differ
  // The projections start from a normal distribution of this deviation, biases from zero; unset: from fan_in_parameter.
  std::optional<double> deviation = {};

  Linear linear(int64_t in, int64_t out, Bias with, Generator& init) const {
    return deviation ? normal_linear(in, out, with, *deviation, init) : Linear(in, out, with, init);
  }
};

/// The states of a minimal recurrent layer through its projection, if it has one, plus the residual, if there is one.
Tensor project_out(const std::optional<Linear>& to_out, const Tensor& states, const Tensor& residual);

/// minGRU (Feng et al., "Were RNNs all we needed?", 2024): gates that see the input alone, so that the recurrence is a
/// scan. [hidden | gate] = to_hidden_and_gate(x), z = sigmoid(gate), h_t = (1 - z_t) h_{t-1} + z_t g(hidden_t) with
/// g(v) = v + 0.5 for v >= 0 and sigmoid(v) below; output = to_out(h), or h.
class MinGru : public Module {
 public:
  MinGru(const MinRnnOptions& options, Generator& init);

  /// x [batch, time, channels], initial [batch, inner] (the true hidden state, not a pre-activation) or none for zeros
  /// -> output [batch, time, channels] (plus a residual of that shape if given), and the last hidden state [batch,
  /// inner], which padding leaves as it is.
  OutputAndState forward(const Tensor& x, const Tensor& initial = {}, const Tensor& residual = {},
                         const Padding& padding = {}) const;
  /// x + forward(norm(x), initial).
  OutputAndState on_stream(const RmsNorm& norm, const Tensor& x, const Tensor& initial = {},
                           const Padding& padding = {}) const;
  void visit(Visitor& visitor) override;

 private:
  OutputAndState mixed(const Tensor& packed, const Tensor& initial, const Tensor& residual,
                       const Padding& padding) const;

  Linear to_hidden_and_gate_;
  std::optional<Linear> to_out_;
};

}  // namespace monoid

#pragma once

#include "monoid/layers/linear.h"
#include "monoid/layers/state.h"

namespace monoid {

/// g(v) = v + 0.5 for v >= 0 and sigmoid(v) below: the positive state that a pre-activation stands for.
Tensor positive_state(const Tensor& pre_activation);

/// The minGRU of the MinGRU stacks (Fritschek/MinGRU-x-Mamba): z = sigmoid(linear_z(x)),
/// h_t = (1 - z_t) h_{t-1} + z_t g(linear_h(x_t)), every state given out. Without a state it starts from g(0) = 0.5,
/// not from 0 as MinGru does. Both projections are one here, [linear_h | linear_z]; each starts from Xavier's uniform
/// distribution, biases from 0.
class StackMinGru : public Module {
 public:
  StackMinGru(int64_t input_size, int64_t hidden_size, Bias bias, Generator& init);

  /// x [batch, time, input_size], initial [batch, hidden_size] (the true hidden state; positive_state() makes one of a
  /// pre-activation) -> every state [batch, time, hidden_size], and the last one [batch, hidden_size].
  OutputAndState forward(const Tensor& x, const Tensor& initial = {}, const Padding& padding = {}) const;
  void visit(Visitor& visitor) override;

 private:
  int64_t hidden_size_;
  Linear to_hidden_and_gate_;
};

}  // namespace monoid

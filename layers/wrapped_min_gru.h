#pragma once

#include <vector>

#include "monoid/layers/stack_min_gru.h"

namespace monoid {

/// The arguments of a GRU, under the names they have in PyTorch.
struct WrappedMinGruOptions {
  int64_t input_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 1;
  bool bidirectional = false;
  bool bias = true;
  bool batch_first = true;
};

/// minGRUs in the place of a GRU (WrappedMinGRU of Fritschek/MinGRU-x-Mamba): layers on top of each other, in one or
/// both directions of time.
class WrappedMinGru : public Module {
 public:
  WrappedMinGru(const WrappedMinGruOptions& options, Generator& init);

  /// x [batch, time, input_size] (or [time, batch, input_size] if not batch_first) -> every state of the last layer,
  /// [batch, time, directions * hidden_size] in the order of x's axes, and h_n [layers * directions, batch,
  /// hidden_size]: the last state of each layer, at time 0 in the backward direction. h_0, shaped like h_n, holds
  /// **pre-activations**: a layer starts from g(h_0), and from g(0) where there is none. An h_n is no h_0: see resume.
  OutputAndState forward(const Tensor& x, const Tensor& h_0 = {}) const;
  /// The same from the states themselves: resume(x, h_n) goes on where the call that returned h_n ended.
  OutputAndState resume(const Tensor& x, const Tensor& states) const;
  void visit(Visitor& visitor) override;

 private:
  OutputAndState run(const Tensor& x, const Tensor& states) const;

  WrappedMinGruOptions options_;
  int64_t directions_;
  std::vector<StackMinGru> cells_;  // layer by layer, forward before backward
};

}  // namespace monoid

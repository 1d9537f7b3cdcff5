#pragma once

#include <optional>
#include <string>
#include <vector>

#include "monoid/core/tape.h"
#include "monoid/layers/dropout.h"
#include "monoid/layers/norm.h"
#include "monoid/layers/stack_min_gru.h"

namespace monoid {

/// The arguments of Fritschek/MinGRU-x-Mamba's StackedMambaMinGRU, under their names, and `causal`.
struct StackedMambaMinGruOptions {
  int64_t num_layers = 1;
  int64_t input_size = 0;
  int64_t hidden_size = 0;
  bool bias = true;       // of the projections and the convolution
  double dropout = 0;     // on both strands before they meet the recurrence and each other; the reference never drops
  bool proj_down = true;  // back to input_size in every layer; without it input_size = hidden_size
  bool causal = false;    // the convolution sees this step and the two before, instead of one on either side

  /// Elements of all parameters.
  int64_t parameters() const;
  /// Throws an Error that names `owner` and the first value out of range.
  void validate(const char* owner) const;
};

/// A dense convolution over three steps, [batch, time, channel] -> the same shape; zero bias at the start.
class DenseConv3 : public Module {
 public:
  DenseConv3(int64_t channels, Bias bias, Generator& init);

  /// output_t of x_{t-1}, x_t, x_{t+1}; zeros outside the sequence.
  Tensor forward(const Tensor& x) const;
  /// output_t of x_{t-2}, x_{t-1}, x_t; what comes before the sequence is `tail` [batch, 2, channel], or zeros. The
  /// state is the next tail.
  OutputAndState causal(const Tensor& x, const Tensor& tail = {}) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor weight_, bias_;  // [channel, channel, 3], [channel]
};

/// x + down(strand1 * strand2): strand 1 is Linear -> LayerNorm -> convolution -> LayerNorm -> SiLU -> minGRU ->
/// LayerNorm, strand 2 Linear -> LayerNorm -> SiLU.
class MambaModule : public Module {
 public:
  MambaModule(const StackedMambaMinGruOptions& options, Generator& init);

  /// x [batch, time, input_size], h_0 [batch, hidden_size] a pre-activation or none for zeros -> the output like x, and
  /// what the reference hands on as the next h_0: the last value of strand 1, [batch, hidden_size]. That is no state
  /// from which the sequence goes on; resume() has one.
  OutputAndState forward(const Tensor& x, const Tensor& h_0 = {}, Generator* dropout = nullptr) const;

  /// Where a causal module stands in a sequence; undefined tensors are a fresh start.
  struct Position {
    Tensor conv_tail;  // [batch, 2, hidden_size]
    Tensor hidden;     // [batch, hidden_size], the true state
  };
  /// Causal only: x from `position` on, which moves to the end of x.
  Tensor resume(const Tensor& x, Position& position, Generator* dropout = nullptr, const Padding& padding = {}) const;
  void visit(Visitor& visitor) override;

 private:
  struct Strands {
    Tensor output, strand1, hidden;
  };
  Tensor before_convolution(const Tensor& x) const;
  Strands after_convolution(const Tensor& x, const Tensor& convolved, const Tensor& hidden, Generator* dropout,
                            const Padding& padding = {}) const;

  int64_t input_size_, hidden_size_;
  bool proj_down_, causal_;
  Linear strand1_proj_, strand2_proj_;
  LayerNorm strand1_ln1_, strand2_ln1_;
  DenseConv3 conv1d_;
  LayerNorm conv_ln_;
  StackMinGru min_gru_;
  LayerNorm gru_ln_;
  Linear down_projection_;
  LayerNorm output_ln_;  // stored and never used, as in the reference
  Dropout dropout_;
};

/// MambaModules on top of each other.
class StackedMambaMinGru : public Module {
 public:
  StackedMambaMinGru(const StackedMambaMinGruOptions& options, Generator& init);

  /// x [batch, time, input_size] -> the same shape. `h_0`, if given, is empty or one pre-activation [batch,
  /// hidden_size] a layer, and is replaced by what each layer hands on (see MambaModule::forward).
  Tensor forward(const Tensor& x, Tensors* h_0 = nullptr, Generator* dropout = nullptr) const;
  /// Causal only: goes on from the state's "layers.N.conv_tail" [batch, 2, hidden_size] and "layers.N.hidden" [batch,
  /// hidden_size], or from a fresh start. `recompute`: see run_layer().
  Tensor forward(const Tensor& x, StateUpdate& state, Generator* dropout = nullptr, bool recompute = false) const;
  void visit(Visitor& visitor) override;

 private:
  StackedMambaMinGruOptions options_;
  std::vector<MambaModule> layers_;
  std::optional<Linear> final_down_projection_;  // stored and never used, as in the reference
};

}  // namespace monoid

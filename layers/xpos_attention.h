#pragma once

#include <string>

#include "monoid/layers/dropout.h"
#include "monoid/layers/init.h"
#include "monoid/layers/state.h"
#include "monoid/ops/attention.h"

namespace monoid {

/// The arguments of mikayahlevi/mru-lm's attn layer.
struct XPosAttentionOptions {
  int64_t channels = 0;
  int64_t heads = 1;
  int64_t key_size = 0, value_size = 0;  // of all heads together
  double dropout = 0;                    // of the weights, and of the output
  double deviation = 0.02, out_deviation = 0.02;

  int64_t key_channels() const { return key_size / heads; }
  /// Elements of all parameters.
  int64_t parameters() const { return 2 * channels * (key_size + value_size); }
  /// Throws an Error that names `owner` and the first value out of range.
  void validate(const char* owner) const;
};

/// Tables of rotary() for the steps of one call, [2, time, pair]: mru_xpos() at the places where the state stands, made
/// on the device, so that a captured step of decoding turns by the place it is replayed at. Only the differences of
/// places matter, so padding may count and sequences be longer than `positions`.
struct XPosRotation {
  Tensor queries, keys;
};
XPosRotation xpos_rotation(int64_t key_channels, int64_t positions, StateUpdate& state, const Tensor& like);

/// Causal softmax attention with the interleaved xPos of MRU-LM on queries and keys. No biases.
class XPosAttention : public Module {
 public:
  XPosAttention(const XPosAttentionOptions& options, Generator& init);

  /// x [batch, time, channels] -> the same shape, plus a residual of that shape if given. It goes on from the state's
  /// caches `name`.keys (turned) and `name`.values.
  Tensor forward(const Tensor& x, const XPosRotation& rotation, StateUpdate& state, const std::string& name,
                 const Tensor& residual = {}, Generator* dropout = nullptr) const;
  void visit(Visitor& visitor) override;

 private:
  Tensor packed(const Tensor& x, const XPosRotation& rotation, const AttentionOptions& how) const;
  Tensor remembered(const Tensor& x, const XPosRotation& rotation, const AttentionOptions& how, StateUpdate& state,
                    const std::string& name) const;

  XPosAttentionOptions options_;
  Tensor to_query_, to_key_, to_value_, attention_out_;
  Dropout dropout_;
};

}  // namespace monoid

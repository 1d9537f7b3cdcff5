#include "monoid/layers/hybrid_mixer.h"

#include "monoid/ops/attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

int64_t inner(const HybridMixerOptions& options) { return options.heads * options.head_channels; }

}  // namespace

HybridMixer::HybridMixer(const HybridMixerOptions& options, Generator& init)
    : options_(options),
      to_qkv_(options.channels, 3 * inner(options), Bias::none, init),
      mix_norm_(options.channels),
      to_mix_(options.channels, options.heads, Bias::none, init),
      rnn_({.channels = options.channels, .inner = inner(options), .project_out = false}, init),
      rnn_out_norm_(options.head_channels),
      attention_out_norm_(options.head_channels),
      to_out_(inner(options), options.channels, Bias::none, init) {}

// From queries, keys and values side by side, [batch, time, 3 * width]: as they are where nothing is kept of them.
Tensor HybridMixer::attended(const Tensor& qkv, StateUpdate& state, const std::string& name) const {
  if (!state.has_state())
    return packed_attention(qkv, options_.heads, options_.heads, {.first_key = state.first_key()});
  const int64_t width = inner(options_);
  Tensors parts = split(qkv, 2, {width, width, width});
  for (Tensor& part : parts) part = reshape(part, {qkv.size(0), qkv.size(1), options_.heads, options_.head_channels});
  const auto [keys, values] = state.append(name, parts[1], parts[2]);
  return attention(parts[0], keys, values, {.first_key = state.first_key(), .end_key = state.end_key()});
}

Tensor HybridMixer::forward(const Tensor& x, StateUpdate& state, const std::string& name,
                            const Tensor& residual) const {
  const int64_t batch = x.size(0), time = x.size(1), width = inner(options_);
  const auto in_heads = [&](const Tensor& packed) {
    return reshape(packed, {batch, time, options_.heads, options_.head_channels});
  };
  const Tensor seen = in_heads(attended(to_qkv_.forward(x), state, name));
  const OutputAndState rnn = rnn_.forward(x, state.before(name + ".hidden", {batch, width}), {}, state.padding());
  state.after(name + ".hidden", rnn.state);

  const Tensor recalled = rnn_out_norm_.forward(in_heads(rnn.output)), found = attention_out_norm_.forward(seen);
  const Tensor mix = unsqueeze(sigmoid(to_mix_.forward(mix_norm_.forward(x))), 3);
  const Tensor mixed = options_.convex_mix ? mix * recalled + (1 - mix) * found : mix * (recalled + (1 - mix) * found);
  return to_out_.forward(reshape(mixed, {batch, time, width}), residual);
}

void HybridMixer::visit(Visitor& visitor) {
  visitor.child("to_qkv", to_qkv_);
  visitor.child("mix_norm", mix_norm_);
  visitor.child("to_mix", to_mix_);
  visitor.child("rnn", rnn_);
  visitor.child("rnn_out_norm", rnn_out_norm_);
  visitor.child("attn_out_norm", attention_out_norm_);
  visitor.child("to_out", to_out_);
}

}  // namespace monoid

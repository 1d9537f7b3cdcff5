#include "monoid/layers/grouped_attention.h"

#include "monoid/ops/attention.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

const GroupedAttentionOptions& validated(const GroupedAttentionOptions& options) {
  check(options.heads >= 1 && options.key_heads >= 1 && options.heads % options.key_heads == 0,
        "GroupedAttention: ", options.heads, " heads for ", options.key_heads, " key heads, wanted a multiple");
  return options;
}

}  // namespace

int64_t GroupedAttentionOptions::parameters() const {
  const int64_t wide = heads * head_channels, narrow = 2 * key_heads * head_channels;
  return 2 * channels * wide + channels * narrow + (bias == Bias::learned ? wide + narrow + channels : 0);
}

GroupedAttention::GroupedAttention(const GroupedAttentionOptions& options, Generator& init)
    : options_(validated(options)),
      to_query_(normal_linear(options.channels, options.heads * options.head_channels, options.bias, options.deviation,
                              init)),
      to_key_value_(normal_linear(options.channels, 2 * options.key_heads * options.head_channels, options.bias,
                                  options.deviation, init)),
      to_out_(normal_linear(options.heads * options.head_channels, options.channels, options.bias, options.deviation,
                            init)) {}

Tensor GroupedAttention::forward(const Tensor& x, const RotaryEmbedding::Turn& turn, StateUpdate& state,
                                 const std::string& name, const Tensor& residual) const {
  const int64_t batch = x.size(0), time = x.size(1), width = options_.key_heads * options_.head_channels;
  const auto in_heads = [&](const Tensor& packed, int64_t heads) {
    return reshape(packed, {batch, time, heads, options_.head_channels});
  };
  const Tensor packed = to_key_value_.forward(x);
  const Tensor queries = turn(in_heads(to_query_.forward(x), options_.heads));
  const Tensor keys = turn(in_heads(slice(packed, 2, 0, width), options_.key_heads));
  const Tensor values = in_heads(slice(packed, 2, width, 2 * width), options_.key_heads);
  const auto [all_keys, all_values] = state.append(name, keys, values);
  const Tensor mixed =
      attention(queries, all_keys, all_values, {.first_key = state.first_key(), .end_key = state.end_key()});
  return to_out_.forward(reshape(mixed, {batch, time, options_.heads * options_.head_channels}), residual);
}

void GroupedAttention::visit(Visitor& visitor) {
  visitor.child("to_query", to_query_);
  visitor.child("to_key_value", to_key_value_);
  visitor.child("to_out", to_out_);
}

}  // namespace monoid

#include "monoid/layers/xpos_attention.h"

#include <cmath>

#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/rotary.h"
#include "monoid/ops/scan.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

const XPosAttentionOptions& validated(const XPosAttentionOptions& options) {
  options.validate("XPosAttention");
  return options;
}

// 1, 2, ..., n: counted by a scan, since a graph that is recorded takes nothing from the host.
Tensor counted(int64_t n, DType dtype, Device device) {
  const Tensor one = Tensor::ones({1, n, 1}, dtype, device);
  return reshape(linear_scan(one, one).states, {n});
}

}  // namespace

void XPosAttentionOptions::validate(const char* owner) const {
  const auto check_dealt = [&](const char* name, int64_t value, int64_t to) {
    check(value >= 1 && value % to == 0, owner, ": ", name, " is ", value, ", wanted a multiple of ", to, " for ",
          heads, " heads");
  };
  check(channels >= 1, owner, ": channels is ", channels, ", wanted at least 1");
  check(heads >= 1, owner, ": heads is ", heads, ", wanted at least 1");
  check_dealt("key_size", key_size, 2 * heads);
  check_dealt("value_size", value_size, heads);
  check(dropout >= 0 && dropout < 1, owner, ": dropout is ", dropout, ", wanted 0 <= dropout < 1");
}

XPosRotation xpos_rotation(int64_t key_channels, int64_t positions, StateUpdate& state, const Tensor& like) {
  const NoTape fixed;
  const DType dtype = like.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const auto width = static_cast<double>(key_channels);
  const int64_t time = like.size(1);
  const Tensor two_to_width = 2 * counted(key_channels / 2, dtype, like.device());
  const Tensor frequencies = exp(two_to_width * (-std::log(10000.0) / width));
  const Tensor log_decay = log1p((two_to_width / (width / 2) - 1) / (1 + 0.4 * width));

  Tensor place = counted(time, dtype, like.device());
  const Tensor end = state.end_key();
  const bool on_device = end.defined() && end.size(0) > 0;
  place = on_device ? place + cast(slice(end, 0, 0, 1), dtype) - static_cast<double>(time + 1)
                    : place + static_cast<double>(state.offset() - 1);
  constexpr double kUnit = 512;
  const Tensor power = unsqueeze((place - static_cast<double>(positions) / 2) / kUnit, 1);
  const Tensor angle = power * frequencies, growth = exp(power * log_decay);
  const Tensor cosine = cos(angle), sine = sin(angle);
  return {stack({growth * cosine, growth * sine}, 0), stack({cosine / growth, sine / growth}, 0)};
}

XPosAttention::XPosAttention(const XPosAttentionOptions& options, Generator& init)
    : options_(validated(options)),
      to_query_(normal_parameter({options.key_size, options.channels}, options.deviation, init)),
      to_key_(normal_parameter({options.key_size, options.channels}, options.deviation, init)),
      to_value_(normal_parameter({options.value_size, options.channels}, options.deviation, init)),
      attention_out_(normal_parameter({options.channels, options.value_size}, options.out_deviation, init)),
      dropout_(options.dropout) {}

Tensor XPosAttention::forward(const Tensor& x, const XPosRotation& rotation, StateUpdate& state,
                              const std::string& name, const Tensor& residual, Generator* dropout) const {
  AttentionOptions how{.first_key = state.first_key(),
                       .end_key = state.end_key(),
                       .dropout = dropout ? options_.dropout : 0,
                       .generator = dropout};
  const bool packs = !state.keeps() && options_.key_size == options_.value_size;
  const Tensor mixed = packs ? packed(x, rotation, how) : remembered(x, rotation, how, state, name);
  return dropout_.of_linear(mixed, attention_out_, residual, dropout);
}

// One product and one gradient of x for all three: for training, where the weights are little beside the steps.
Tensor XPosAttention::packed(const Tensor& x, const XPosRotation& rotation, const AttentionOptions& how) const {
  const Tensor projection = linear(x, concat({to_query_, to_key_, to_value_}, 0));
  return packed_attention(projection, options_.heads, options_.heads, how,
                          {.queries = rotation.queries, .keys = rotation.keys});
}

Tensor XPosAttention::remembered(const Tensor& x, const XPosRotation& rotation, const AttentionOptions& how,
                                 StateUpdate& state, const std::string& name) const {
  const int64_t batch = x.size(0), time = x.size(1);
  const auto in_heads = [&](const Tensor& weight) {
    return reshape(linear(x, weight), {batch, time, options_.heads, weight.size(0) / options_.heads});
  };
  const Tensor queries = rotary(in_heads(to_query_), rotation.queries, RotaryPairs::interleaved);
  const Tensor keys = rotary(in_heads(to_key_), rotation.keys, RotaryPairs::interleaved);
  const auto [all_keys, all_values] = state.append(name, keys, in_heads(to_value_));
  return reshape(attention(queries, all_keys, all_values, how), {batch, time, options_.value_size});
}

void XPosAttention::visit(Visitor& visitor) {
  visitor.parameter("to_query", to_query_);
  visitor.parameter("to_key", to_key_);
  visitor.parameter("to_value", to_value_);
  visitor.parameter("attention_out", attention_out_);
}

}  // namespace monoid

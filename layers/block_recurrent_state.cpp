#include "monoid/layers/block_recurrent_state.h"

#include <algorithm>
#include <cmath>

#include "monoid/ops/attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

constexpr double kSmall = 0.1;  // deviation at the start, but for places, which are added to what is normed

}  // namespace

QueryKeyNorm::QueryKeyNorm(int64_t channels)
    : query_scale_(constant_parameter({channels}, 1)), key_scale_(constant_parameter({channels}, 1)) {}

Tensor QueryKeyNorm::queries(const Tensor& q) const { return l2_rms_norm(q, query_scale_); }
Tensor QueryKeyNorm::keys(const Tensor& k) const { return l2_rms_norm(k, key_scale_); }

// 1 / sqrt(channels) for vectors of length 1 (the reference has a scale of 8 for these, and does not pass it on);
// l2_rms_norm makes them sqrt(channels) long.
double QueryKeyNorm::scale() const {
  const auto channels = static_cast<double>(query_scale_.size(0));
  return 1 / (channels * std::sqrt(channels));
}

void QueryKeyNorm::visit(Visitor& visitor) {
  visitor.parameter("q_scale", query_scale_);
  visitor.parameter("k_scale", key_scale_);
}

int64_t StateContainerOptions::parameters() const {
  const int64_t inner = heads * head_channels;
  return channels * (3 * inner + 2 * head_channels) + 2 * inner * channels + channels * (channels + 1) +
         2 * vectors * channels + 2 * channels + 6 * head_channels;
}

StateContainer::StateContainer(const StateContainerOptions& options, Generator& init)
    : options_(options),
      norm_(options.channels, Bias::none),
      read_query_(options.channels, options.heads * options.head_channels, Bias::none, init),
      self_query_(options.channels, options.heads * options.head_channels, Bias::none, init),
      cross_query_(options.channels, options.heads * options.head_channels, Bias::none, init),
      to_key_value_(options.channels, 2 * options.head_channels, Bias::none, init),
      beginning_(normal_parameter({options.vectors, options.channels}, kSmall, init)),
      places_(normal_parameter({options.vectors, options.channels}, 1, init)),
      read_norm_(options.head_channels),
      self_norm_(options.head_channels),
      cross_norm_(options.head_channels),
      to_out_(2 * options.heads * options.head_channels, options.channels, Bias::none, init),
      to_update_(options.channels, options.channels, Bias::learned, init),
      pace_(normal_parameter({options.channels}, kSmall, init)) {}

Tensor StateContainer::beginning(int64_t batch) const {
  return expand(beginning_, {batch, options_.vectors, options_.channels});
}

StateContainer::View StateContainer::view(const Tensor& states) const {
  const Tensor normed = norm_.forward(states) + places_;
  return {normed, to_key_value_.forward(normed)};
}

// [batch, time, head, channel].
Tensor StateContainer::attend(const Tensor& packed_queries, const Tensor& keys_values, const QueryKeyNorm& norm) const {
  const int64_t batch = packed_queries.size(0), channels = options_.head_channels;
  const Tensors halves =
      split(reshape(keys_values, {batch, keys_values.size(1), 1, 2 * channels}), 3, {channels, channels});
  const Tensor queries = reshape(packed_queries, {batch, packed_queries.size(1), options_.heads, channels});
  return attention(norm.queries(queries), norm.keys(halves[0]), halves[1],
                   {.mask = AttentionMask::full(), .scale = norm.scale()});
}

Tensor StateContainer::read(const Tensor& x, const Tensor& keys_values) const {
  const Tensor queries = read_query_.forward(x);
  const int64_t blocks = keys_values.size(0) / std::max<int64_t>(1, x.size(0)), width = queries.size(2);
  const Tensor by_block = reshape(queries, {x.size(0) * blocks, x.size(1) / std::max<int64_t>(1, blocks), width});
  return reshape(attend(by_block, keys_values, read_norm_), queries.shape());
}

Tensor StateContainer::write(const Tensor& states, const View& view, const Tensor& keys_values) const {
  const Tensor among_themselves = attend(self_query_.forward(view.normed), view.keys_values, self_norm_);
  const Tensor from_block = attend(cross_query_.forward(view.normed), keys_values, cross_norm_);
  const Tensor both = reshape(concat({among_themselves, from_block}, 3),
                              {states.size(0), options_.vectors, 2 * options_.heads * options_.head_channels});
  const Tensor update = to_update_.forward(to_out_.forward(both));
  return states + sigmoid(pace_) * (update - states);
}

void StateContainer::visit(Visitor& visitor) {
  visitor.child("norm", norm_);
  visitor.child("read_query", read_query_);
  visitor.child("self_query", self_query_);
  visitor.child("cross_query", cross_query_);
  visitor.child("to_key_value", to_key_value_);
  visitor.parameter("beginning", beginning_);
  visitor.parameter("places", places_);
  visitor.child("read_norm", read_norm_);
  visitor.child("self_norm", self_norm_);
  visitor.child("cross_norm", cross_norm_);
  visitor.child("to_out", to_out_);
  visitor.child("to_update", to_update_);
  visitor.parameter("pace", pace_);
}

}  // namespace monoid

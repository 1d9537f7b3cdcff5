#include "monoid/layers/block_recurrent_state.h"

#include <algorithm>
#include <cmath>

#include "monoid/ops/attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

constexpr double kSmall = 0.1;  // deviation at the start, but for places, which are added to what is normed

}  // namespace

QueryKeyNorm::QueryKeyNorm(int64_t channels)
    : query_scale_(constant_parameter({channels}, 1)), key_scale_(constant_parameter({channels}, 1)) {}

Tensor QueryKeyNorm::queries(const Tensor& q) const { return l2_rms_norm(q, query_scale_); }
Tensor QueryKeyNorm::keys(const Tensor& k) const { return l2_rms_norm(k, key_scale_); }
Tensor QueryKeyNorm::plain_queries(const Tensor& q) { return l2_rms_norm(q); }
Tensor QueryKeyNorm::keys_for_plain(const Tensor& k) const { return l2_rms_norm(k, query_scale_ * key_scale_); }

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

// The output of attention goes through two matrices and is blended with what was there, channel by channel: all of it
// is one matrix.
StateContainer::Writing StateContainer::writing() const {
  const Tensor replaced = sigmoid(pace_);
  return {.projection = joined_weights({&to_key_value_, &self_query_, &cross_query_}),
          .out = matmul(unsqueeze(replaced, 1) * to_update_.weight(), to_out_.weight()),
          .bias = replaced * to_update_.bias(),
          .kept = 1 - replaced};
}

StateContainer::View StateContainer::view(const Tensor& states, const Writing* writing) const {
  const NormAndSum stream = norm_.add(states);
  const Tensor normed = stream.normed + places_;
  if (!writing) return {stream.sum, to_key_value_.forward(normed), {}, {}};
  const int64_t inner = options_.heads * options_.head_channels;
  const Tensors parts = split(linear(normed, writing->projection), 2, {2 * options_.head_channels, inner, inner});
  return {stream.sum, parts[0], parts[1], parts[2]};
}

// [batch, time, head, channel].
Tensor StateContainer::attend(const Tensor& packed_queries, const Tensor& keys_values, const QueryKeyNorm& norm) const {
  const int64_t batch = packed_queries.size(0), channels = options_.head_channels;
  const Tensors halves =
      split(reshape(keys_values, {batch, keys_values.size(1), 1, 2 * channels}), 3, {channels, channels});
  const Tensor queries = reshape(packed_queries, {batch, packed_queries.size(1), options_.heads, channels});
  return attention(QueryKeyNorm::plain_queries(queries), norm.keys_for_plain(halves[0]), halves[1],
                   {.mask = AttentionMask::full(), .scale = norm.scale()});
}

Tensor StateContainer::read(const Tensor& queries, const Tensor& keys_values) const {
  const int64_t batch = queries.size(0), blocks = keys_values.size(0) / std::max<int64_t>(1, batch);
  const Shape by_block{batch * blocks, queries.size(1) / std::max<int64_t>(1, blocks), queries.size(2)};
  return reshape(attend(reshape(queries, by_block), keys_values, read_norm_), queries.shape());
}

Tensor StateContainer::write(const View& view, const Tensor& keys_values, const Writing& writing) const {
  const Tensor among_themselves = attend(view.self_queries, view.keys_values, self_norm_);
  const Tensor from_block = attend(view.cross_queries, keys_values, cross_norm_);
  const Tensor both = reshape(concat({among_themselves, from_block}, 3),
                              {view.states.size(0), options_.vectors, 2 * options_.heads * options_.head_channels});
  return linear(both, writing.out, writing.bias, writing.kept * view.states);
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

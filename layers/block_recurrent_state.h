#pragma once

#include <optional>

#include "monoid/layers/linear.h"

namespace monoid {

/// Makes queries and keys [..., channel] of one length each, times a learned vector, before they meet.
class QueryKeyNorm : public Module {
 public:
  explicit QueryKeyNorm(int64_t channels);

  Tensor queries(const Tensor& q) const;
  Tensor keys(const Tensor& k) const;
  /// With both vectors on the keys, of which there are fewer: the same products where nothing rotates them.
  static Tensor plain_queries(const Tensor& q);
  Tensor keys_for_plain(const Tensor& k) const;
  /// What the products of both are multiplied with.
  double scale() const;
  void visit(Visitor& visitor) override;

 private:
  Tensor query_scale_, key_scale_;
};

struct StateContainerOptions {
  int64_t channels = 0;
  int64_t heads = 1, head_channels = 0;
  int64_t vectors = 0;

  /// Elements of all parameters.
  int64_t parameters() const;
};

/// The recurrent state of a Block-Recurrent Transformer (Hutchins et al., "Block-recurrent transformers", 2022): a few
/// vectors that the tokens of a block read by attention, and that are written anew from its keys and values when the
/// block ends. Heads share one key and one value, which are packed side by side: [..., 2 * head_channels].
class StateContainer : public Module {
 public:
  StateContainer(const StateContainerOptions& options, Generator& init);

  /// [batch, vectors, channels]: where a sequence begins.
  Tensor beginning(int64_t batch) const;

  /// What writing multiplies with, block after block: new states = kept * old ones + out * found + bias.
  struct Writing {
    Tensor projection;       // [2 * heads * head_channels + 2 * head_channels, channels]: see View
    Tensor out, bias, kept;  // [channels, 2 * heads * head_channels], [channels], [channels]
  };
  Writing writing() const;

  /// States as attention sees them.
  struct View {
    Tensor states;                       // [batch, vectors, channels]: they, to go on from
    Tensor keys_values;                  // [batch, vectors, 2 * head_channels]
    Tensor self_queries, cross_queries;  // [batch, vectors, heads * head_channels], where they are written
  };
  View view(const Tensor& states, const Writing* writing) const;
  /// queries [batch, time, heads * head_channels], by read_query() -> the same shape.
  Tensor read(const Tensor& queries, const Tensor& keys_values) const;
  const Linear& read_query() const { return read_query_; }
  /// The states after a block with keys and values [batch, time, 2 * head_channels], not rotated.
  Tensor write(const View& view, const Tensor& keys_values, const Writing& writing) const;

  void visit(Visitor& visitor) override;

 private:
  Tensor attend(const Tensor& packed_queries, const Tensor& keys_values, const QueryKeyNorm& norm) const;

  StateContainerOptions options_;
  LayerNorm norm_;
  Linear read_query_, self_query_, cross_query_, to_key_value_;
  Tensor beginning_, places_;  // [vectors, channels]
  QueryKeyNorm read_norm_, self_norm_, cross_norm_;
  Linear to_out_, to_update_;
  Tensor pace_;  // [channels]: its sigmoid is how much of a state is replaced
};

}  // namespace monoid

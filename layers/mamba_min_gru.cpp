#include "monoid/layers/mamba_min_gru.h"

#include <cmath>

#include "monoid/layers/recompute.h"
#include "monoid/ops/conv.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

constexpr int64_t kKernel = 3;

const StackedMambaMinGruOptions& validated(const StackedMambaMinGruOptions& options) {
  options.validate("StackedMambaMinGru");
  return options;
}

Bias bias_of(const StackedMambaMinGruOptions& options) { return options.bias ? Bias::learned : Bias::none; }

// Kaiming's uniform distribution for what follows a rectifier (He et al., "Delving deep into rectifiers", 2015).
Tensor kaiming_parameter(const Shape& shape, int64_t fan_in, Generator& init) {
  return uniform_parameter(shape, std::sqrt(6 / static_cast<double>(fan_in)), init);
}

}  // namespace

int64_t StackedMambaMinGruOptions::parameters() const {
  const int64_t in = input_size, hidden = hidden_size, biased = bias ? 1 : 0;
  const int64_t strands = 2 * (in + biased) * hidden, conv = (kKernel * hidden + biased) * hidden;
  const int64_t gru = 2 * (hidden + biased) * hidden, down = (hidden + biased) * in;
  const int64_t norms = 4 * 2 * hidden + 2 * in;
  return num_layers * (strands + conv + gru + down + norms) + (proj_down ? (hidden + 1) * in : 0);
}

void StackedMambaMinGruOptions::validate(const char* owner) const {
  const auto check_positive = [&](const char* name, int64_t value) {
    check(value >= 1, owner, ": ", name, " is ", value, ", wanted at least 1");
  };
  check_positive("num_layers", num_layers);
  check_positive("input_size", input_size);
  check_positive("hidden_size", hidden_size);
  check(dropout >= 0 && dropout < 1, owner, ": dropout is ", dropout, ", wanted 0 <= dropout < 1");
  check(proj_down || input_size == hidden_size, owner, ": without proj_down the strands join the residual stream as ",
        "they are, but input_size is ", input_size, " and hidden_size ", hidden_size, "; make them equal");
}

DenseConv3::DenseConv3(int64_t channels, Bias bias, Generator& init)
    : weight_(kaiming_parameter({channels, channels, kKernel}, channels * kKernel, init)),
      bias_(zero_bias(channels, bias)) {}

Tensor DenseConv3::forward(const Tensor& x) const { return conv1d(x, weight_, bias_, 1, 1); }

OutputAndState DenseConv3::causal(const Tensor& x, const Tensor& tail) const {
  const Tensor seen = tail.defined() ? concat({tail, x}, 1) : pad(x, 1, kKernel - 1, 0);
  return {conv1d(seen, weight_, bias_, 0, 0), slice(seen, 1, x.size(1), x.size(1) + kKernel - 1)};
}

void DenseConv3::visit(Visitor& visitor) {
  visitor.parameter("weight", weight_);
  if (bias_.defined()) visitor.parameter("bias", bias_);
}

MambaModule::MambaModule(const StackedMambaMinGruOptions& options, Generator& init)
    : input_size_(validated(options).input_size),
      hidden_size_(options.hidden_size),
      proj_down_(options.proj_down),
      causal_(options.causal),
      strand1_proj_(xavier_linear(input_size_, hidden_size_, bias_of(options), init)),
      strand2_proj_(xavier_linear(input_size_, hidden_size_, bias_of(options), init)),
      strand1_ln1_(hidden_size_),
      strand2_ln1_(hidden_size_),
      conv1d_(hidden_size_, bias_of(options), init),
      conv_ln_(hidden_size_),
      min_gru_(hidden_size_, hidden_size_, bias_of(options), init),
      gru_ln_(hidden_size_),
      down_projection_(xavier_linear(hidden_size_, input_size_, bias_of(options), init)),
      output_ln_(input_size_),
      dropout_(options.dropout) {}

Tensor MambaModule::before_convolution(const Tensor& x) const {
  check(x.defined() && x.rank() == 3 && x.size(2) == input_size_, "MambaModule: the input is ", describe(x),
        ", wanted [batch, time, ", input_size_, "]");
  return strand1_ln1_.forward(strand1_proj_.forward(x));
}

MambaModule::Strands MambaModule::after_convolution(const Tensor& x, const Tensor& convolved, const Tensor& hidden,
                                                    Generator* dropout, const Padding& padding) const {
  const Tensor into_gru = dropout_.forward(silu(conv_ln_.forward(convolved)), dropout);
  const OutputAndState gru = min_gru_.forward(into_gru, hidden, padding);
  const Tensor strand1 = gru_ln_.forward(gru.output);
  const Tensor strand2 = dropout_.forward(silu(strand2_ln1_.forward(strand2_proj_.forward(x))), dropout);
  const Tensor product = strand1 * strand2;
  return {proj_down_ ? down_projection_.forward(product, x) : product + x, strand1, gru.state};
}

OutputAndState MambaModule::forward(const Tensor& x, const Tensor& h_0, Generator* dropout) const {
  const Tensor normed = before_convolution(x);
  const Tensor convolved = causal_ ? conv1d_.causal(normed).output : conv1d_.forward(normed);
  const Tensor hidden = h_0.defined() ? positive_state(h_0) : Tensor();
  const Strands strands = after_convolution(x, convolved, hidden, dropout);
  if (x.size(1) > 0) return {strands.output, select(strands.strand1, 1, -1)};
  return {strands.output, h_0.defined() ? h_0 : Tensor::zeros({x.size(0), hidden_size_}, x.dtype(), x.device())};
}

Tensor MambaModule::resume(const Tensor& x, Position& position, Generator* dropout, const Padding& padding) const {
  check(causal_,
        "MambaModule: only a causal module can go on from a position, because the convolution of this one sees ",
        "one step ahead; make it with causal = true");
  const OutputAndState conv = conv1d_.causal(padding.zeroed(before_convolution(x)), position.conv_tail);
  const Strands strands = after_convolution(x, conv.output, position.hidden, dropout, padding);
  // A copy, so that two steps do not hold the memory of the sequence they end.
  position = {concat({conv.state}, 1), strands.hidden};
  return strands.output;
}

void MambaModule::visit(Visitor& visitor) {
  visitor.child("strand1_proj", strand1_proj_);
  visitor.child("strand1_ln1", strand1_ln1_);
  visitor.child("strand2_proj", strand2_proj_);
  visitor.child("strand2_ln1", strand2_ln1_);
  visitor.child("conv1d", conv1d_);
  visitor.child("conv_ln", conv_ln_);
  visitor.child("min_gru", min_gru_);
  visitor.child("gru_ln", gru_ln_);
  visitor.child("down_projection", down_projection_);
  visitor.child("output_ln", output_ln_);
}

StackedMambaMinGru::StackedMambaMinGru(const StackedMambaMinGruOptions& options, Generator& init)
    : options_(validated(options)) {
  for (int64_t layer = 0; layer < options.num_layers; ++layer) layers_.emplace_back(options, init);
  if (options.proj_down) final_down_projection_.emplace(options.hidden_size, options.input_size, Bias::learned, init);
}

Tensor StackedMambaMinGru::forward(const Tensor& x, Tensors* h_0, Generator* dropout) const {
  check(!h_0 || h_0->empty() || h_0->size() == layers_.size(), "StackedMambaMinGru: h_0 has ", h_0 ? h_0->size() : 0,
        " tensors, wanted none or one for each of the ", layers_.size(), " layers");
  Tensors next;
  Tensor stream = x;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const Tensor initial = h_0 && !h_0->empty() ? (*h_0)[layer] : Tensor();
    const auto [output, handed_on] = layers_[layer].forward(stream, initial, dropout);
    stream = output;
    next.push_back(handed_on);
  }
  if (h_0) *h_0 = next;
  return stream;
}

Tensor StackedMambaMinGru::forward(const Tensor& x, StateUpdate& state, Generator* dropout, bool recompute) const {
  Tensor stream = x;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const auto call = [this, layer](const Tensors& read, StateUpdate& at, Generator* random) {
      const std::string tail_name = str("layers.", layer, ".conv_tail"), hidden_name = str("layers.", layer, ".hidden");
      const int64_t batch = read[0].size(0), hidden = options_.hidden_size;
      MambaModule::Position position{at.before(tail_name, {batch, kKernel - 1, hidden}),
                                     at.before(hidden_name, {batch, hidden})};
      const Tensor output = layers_[layer].resume(read[0], position, random, at.padding());
      at.after(tail_name, position.conv_tail);
      at.after(hidden_name, position.hidden);
      return Tensors{output};
    };
    stream = run_layer(recompute, {stream}, state, dropout, call)[0];
  }
  return stream;
}

void StackedMambaMinGru::visit(Visitor& visitor) {
  for (size_t layer = 0; layer < layers_.size(); ++layer) visitor.child(str("layers.", layer), layers_[layer]);
  if (final_down_projection_) visitor.child("final_down_projection", *final_down_projection_);
}

}  // namespace monoid

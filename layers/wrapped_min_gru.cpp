#include "monoid/layers/wrapped_min_gru.h"

#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

void check_extent(const char* name, int64_t value) {
  check(value >= 1, "WrappedMinGru: ", name, " is ", value, ", wanted at least 1");
}

}  // namespace

WrappedMinGru::WrappedMinGru(const WrappedMinGruOptions& options, Generator& init)
    : options_(options), directions_(options.bidirectional ? 2 : 1) {
  check_extent("input_size", options.input_size);
  check_extent("hidden_size", options.hidden_size);
  check_extent("num_layers", options.num_layers);
  for (int64_t layer = 0; layer < options.num_layers; ++layer) {
    const int64_t width = layer == 0 ? options.input_size : directions_ * options.hidden_size;
    for (int64_t direction = 0; direction < directions_; ++direction)
      cells_.emplace_back(width, options.hidden_size, options.bias ? Bias::learned : Bias::none, init);
  }
}

OutputAndState WrappedMinGru::forward(const Tensor& x, const Tensor& h_0) const {
  return run(x, h_0.defined() ? positive_state(h_0) : Tensor());
}

OutputAndState WrappedMinGru::resume(const Tensor& x, const Tensor& states) const {
  check_defined("WrappedMinGru::resume", "the state", states);
  return run(x, states);
}

OutputAndState WrappedMinGru::run(const Tensor& x, const Tensor& states) const {
  check(x.defined() && x.rank() == 3 && x.size(2) == options_.input_size, "WrappedMinGru: the input is ", describe(x),
        ", wanted [", options_.batch_first ? "batch, time" : "time, batch", ", ", options_.input_size, "]");
  Tensor layer = options_.batch_first ? x : transpose(x, 0, 1);
  if (states.defined())
    check_shape("WrappedMinGru", "the initial state", states,
                {std::ssize(cells_), layer.size(0), options_.hidden_size});
  Tensors finals;
  for (size_t cell = 0; cell < cells_.size();) {
    Tensors ways;
    for (int64_t direction = 0; direction < directions_; ++direction, ++cell) {
      const Tensor initial = states.defined() ? select(states, 0, static_cast<int64_t>(cell)) : Tensor();
      const bool backward = direction == 1;
      const auto [output, final] = cells_[cell].forward(backward ? flip(layer, 1) : layer, initial);
      ways.push_back(backward ? flip(output, 1) : output);
      finals.push_back(final);
    }
    layer = directions_ == 1 ? ways.front() : concat(ways, 2);
  }
  return {options_.batch_first ? layer : transpose(layer, 0, 1), stack(finals, 0)};
}

void WrappedMinGru::visit(Visitor& visitor) {
  for (size_t cell = 0; cell < cells_.size(); ++cell) {
    const size_t directions = static_cast<size_t>(directions_);
    const char* way = directions == 1 ? "" : cell % 2 == 0 ? ".fwd" : ".bwd";
    visitor.child(str("layers.", cell / directions, way), cells_[cell]);
  }
}

}  // namespace monoid

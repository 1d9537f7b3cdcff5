#include "monoid/layers/recompute.h"

#include <memory>

namespace monoid {

Tensors run_layer(bool recompute, const Tensors& inputs, StateUpdate& state, Generator* random, LayerCall layer) {
  if (!recompute || state.has_state() || !Tape::current()) return layer(inputs, state, random);
  const auto drawn = std::make_shared<uint64_t>();  // where the layer leaves the stream of random numbers
  const auto again = [layer = std::move(layer), state, draws = random != nullptr,
                      begin = random ? *random : Generator(0), drawn](const Tensors& read) {
    StateUpdate no_state = state;
    Generator numbers = begin;
    const Tensors outputs = layer(read, no_state, draws ? &numbers : nullptr);
    *drawn = numbers.offset();
    return outputs;
  };
  const Tensors outputs = checkpoint(again, inputs);
  if (random) random->set_offset(*drawn);
  return outputs;
}

}  // namespace monoid

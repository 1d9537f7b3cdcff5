#pragma once

#include <functional>

#include "monoid/core/random.h"
#include "monoid/core/tape.h"
#include "monoid/layers/state.h"

namespace monoid {

/// A layer as a function of what it reads, and of random numbers (null: none).
using LayerCall = std::function<Tensors(const Tensors& inputs, StateUpdate& state, Generator* random)>;

/// layer(inputs, state, random). With `recompute` the tape keeps only the inputs, and backward runs the layer again
/// with the same random numbers: the activations of one layer at a time, for about a third more time (Chen et al.,
/// "Training Deep Nets with Sublinear Memory Cost", 2016). The bits are the same. A layer that reads or leaves a state
/// is kept as it is. What `layer` holds by reference must live until backward is through.
Tensors run_layer(bool recompute, const Tensors& inputs, StateUpdate& state, Generator* random, LayerCall layer);

/// x through one layer after the other, each a forward(x, state, random) or a forward(x, state).
template <class Layer>
Tensor run_layers(bool recompute, const std::vector<Layer>& layers, Tensor x, StateUpdate& state,
                  Generator* random = nullptr) {
  for (const Layer& layer : layers) {
    const auto call = [&layer](const Tensors& in, StateUpdate& at, [[maybe_unused]] Generator* numbers) {
      if constexpr (requires { layer.forward(in[0], at, numbers); })
        return Tensors{layer.forward(in[0], at, numbers)};
      else
        return Tensors{layer.forward(in[0], at)};
    };
    x = run_layer(recompute, {x}, state, random, call)[0];
  }
  return x;
}

}  // namespace monoid

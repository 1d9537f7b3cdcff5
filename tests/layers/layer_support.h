#pragma once

#include <functional>

#include "monoid/layers/state.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/gradcheck.h"

namespace monoid::test {

/// Checks the gradients of run(inputs) by the inputs and by every parameter of the module, in f64; `step` is that of
/// the finite differences.
inline void check_layer_gradients(const std::string& layer, Module& module, const Tensors& inputs,
                                  const std::function<Tensors(const Tensors&)>& run, double step = 1e-5) {
  cast_to(module, DType::f64);
  Tensors all = inputs;
  for (const NamedTensor& parameter : parameters(module)) all.push_back(parameter.value);
  const OpSample sample{layer, all, [&](const Tensors& perturbed) {
                          size_t next = inputs.size();
                          for_each_tensor(module, [&](const std::string&, Tensor& value, Role role) {
                            if (role == Role::parameter) value = perturbed[next++];
                          });
                          return run(perturbed);
                        }};
  check_gradients(layer, sample, step);
}

using RecurrentForward = std::function<OutputAndState(const Tensor& x, const Tensor& state)>;

/// Runs x [batch, time, ...] in pieces of the given lengths (the last one repeats), handing the state on.
inline OutputAndState run_in_pieces(const RecurrentForward& forward, const Tensor& x, Tensor state,
                                    const std::vector<int64_t>& lengths) {
  Tensors outputs;
  size_t piece = 0;
  for (int64_t begin = 0; begin < x.size(1); ++piece) {
    const int64_t end = std::min(x.size(1), begin + lengths[std::min(piece, lengths.size() - 1)]);
    const OutputAndState result = forward(slice(x, 1, begin, end), state);
    outputs.push_back(result.output);
    state = result.state;
    begin = end;
  }
  return {concat(outputs, 1), state};
}

/// Checks that one call, single steps and several chunkings agree, for awkward lengths, from a fresh start and from
/// `initial`.
inline void check_all_forms_agree(const RecurrentForward& forward, int64_t channels, const Tensor& initial,
                                  double tolerance) {
  const DType dtype = initial.dtype();
  Generator generator(11);
  for (const int64_t time : {1, 2, 3, 5, 16, 31, 97}) {
    const Tensor x = random_normal({initial.size(0), time, channels}, generator, 0, 1, dtype);
    for (const Tensor& start : {Tensor(), initial}) {
      const OutputAndState whole = forward(x, start);
      for (const std::vector<int64_t>& lengths :
           std::vector<std::vector<int64_t>>{{1}, {2}, {7}, {1, 30}, {13, 1, 4}}) {
        CAPTURE(time, start.defined(), lengths);
        const OutputAndState pieces = run_in_pieces(forward, x, start, lengths);
        check_close_in_norm(pieces.output, whole.output, tolerance);
        check_close_in_norm(pieces.state, whole.state, tolerance);
      }
    }
  }
}

}  // namespace monoid::test

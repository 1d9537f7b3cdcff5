#pragma once

#include <cmath>
#include <set>

#include "monoid/models/language_model.h"
#include "monoid/tests/layers/layer_support.h"
#include "monoid/tests/support/temporary_folder.h"

// What every language model must do, checked the same way for all.
namespace monoid::test {

inline Tensor tokens_of(const LanguageModel& model, const Shape& shape, uint64_t seed = 2) {
  Generator generator(seed);
  return random_integers(shape, generator, model.vocabulary());
}

/// The logits of tokens [batch, time] given in pieces of the lengths (the last one repeats), the state handed on.
inline Tensor run_in_chunks(LanguageModel& model, const Tensor& tokens, State& state,
                            const std::vector<int64_t>& lengths) {
  return run_in_pieces(
             [&](const Tensor& piece, const Tensor&) {
               return OutputAndState{model.forward(piece, &state), {}};
             },
             tokens, {}, lengths)
      .output;
}

/// One for each parameter, undefined where nothing reached it.
inline Tensors gradients(Module& module) {
  Tensors found;
  for (const NamedTensor& parameter : parameters(module)) found.push_back(parameter.value.grad());
  return found;
}

/// The gradient by every parameter and by every tensor of the state, through the logits and the state after them.
inline void check_model_gradients(LanguageModel& model, const Tensor& tokens) {
  State seeded;
  model.forward(tokens, &seeded);
  std::vector<std::string> names;
  Tensors state_tensors;
  for (const NamedTensor& entry : seeded.tensors()) {
    if (!is_floating(entry.value.dtype())) continue;
    names.push_back(entry.name);
    state_tensors.push_back(contiguous(entry.value));
  }
  check_layer_gradients(model.type(), model, state_tensors, [&](const Tensors& in) {
    State state = seeded;
    for (size_t i = 0; i < names.size(); ++i) state.set(names[i], in[i]);
    Tensors outputs{model.forward(tokens, &state)};
    for (const std::string& name : names) outputs.push_back(state.filled(name));
    return outputs;
  });
}

/// One call, chunks and single steps: the same logits and state.
inline void check_model_streaming(LanguageModel& model, double tolerance) {
  for (const int64_t time : {1, 2, 3, 17, 64}) {
    const Tensor tokens = tokens_of(model, {2, time});
    State whole_state;
    const Tensor whole = model.forward(tokens, &whole_state);
    check_identical(model.forward(tokens), whole);  // an empty state is a fresh start
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {5}, {10, 1}, {3, 40, 1}}) {
      CAPTURE(model.config(), time, lengths);
      State state;
      check_close_in_norm(run_in_chunks(model, tokens, state, lengths), whole, tolerance);
      REQUIRE(state.size() == whole_state.size());
      for (size_t i = 0; i < state.size(); ++i) {
        const std::string name = state.tensors()[i].name;
        CHECK(name == whole_state.tensors()[i].name);
        check_close_in_norm(state.filled(name), whole_state.filled(name), tolerance);
      }
    }
  }
}

/// Gradients through a state carried on one tape equal those of one call. For models in f64.
inline void check_gradients_through_state(LanguageModel& model, double tolerance) {
  const Tensor tokens = tokens_of(model, {2, 12});
  Generator generator(3);
  const Tensor cotangent = random_normal({2, 12, model.vocabulary()}, generator, 0, 1, DType::f64);
  const auto of = [&](const std::vector<int64_t>& lengths) {
    zero_grad(model);
    Tape tape;
    State state;
    tape.backward(run_in_chunks(model, tokens, state, lengths), cotangent);
    return gradients(model);
  };
  const Tensors whole = of({12}), chunked = of({4, 1, 7});
  for (size_t i = 0; i < whole.size(); ++i) {
    REQUIRE(whole[i].defined() == chunked[i].defined());
    if (whole[i].defined()) check_close_in_norm(chunked[i], whole[i], tolerance);
  }
}

/// A state saved in the middle of a sequence goes on from the file bit for bit.
inline void check_state_through_file(LanguageModel& model) {
  const Tensor tokens = tokens_of(model, {3, 20});
  State state;
  model.forward(contiguous(slice(tokens, 1, 0, 9)), &state);
  const TemporaryFolder folder;
  state.save(folder / "state.safetensors");
  State resumed = State::load(folder / "state.safetensors");
  const Tensor rest = contiguous(slice(tokens, 1, 9, 20));
  check_identical(model.forward(rest, &resumed), model.forward(rest, &state));
}

/// The loss gives a gradient that is finite and not zero to every parameter but the named ones, and none to those.
inline void check_gradient_reaches_all_but(LanguageModel& model, const std::set<std::string>& unused) {
  Tape tape;
  const Tensor loss = model.loss(tokens_of(model, {4, 16}), tokens_of(model, {4, 16}, 3));
  CHECK(loss.item() == Approx(std::log(static_cast<double>(model.vocabulary()))).epsilon(0.35));
  tape.backward(loss);
  size_t untouched = 0;
  for (const NamedTensor& parameter : parameters(model)) {
    CAPTURE(parameter.name);
    if (unused.contains(parameter.name)) {
      CHECK_FALSE(parameter.value.grad().defined());
      ++untouched;
      continue;
    }
    REQUIRE(parameter.value.grad().defined());
    double largest = 0;
    for (double value : parameter.value.grad().to_vector<double>()) largest = std::max(largest, std::abs(value));
    CHECK(largest > 0);
    CHECK(std::isfinite(largest));
  }
  CHECK(untouched == unused.size());
}

}  // namespace monoid::test

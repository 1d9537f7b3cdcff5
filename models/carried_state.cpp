#include "monoid/models/carried_state.h"

#include <utility>

namespace monoid {

Tensor CarriedState::loss(LanguageModel& model, const Tensor& tokens, const Tensor& targets, bool fresh,
                          Generator* random) {
  check(fresh || !state_.empty(), model.type(), ": there is no state to carry on; the first segment must be fresh");
  State state;
  if (!fresh) {
    // A copy: backward reads the state that came in after the one that goes out has taken its place.
    state = state_;
    for (const NamedTensor& entry : state_.tensors()) state.set(entry.name, entry.value.clone());
  }
  const Tensor loss = model.training_loss(tokens, targets, &state, random);
  state.detach();
  const State before = std::exchange(state_, state);
  for (const NamedTensor& entry : state.tensors()) {
    Tensor place = before.find(entry.name);
    const bool fits = place.defined() && place.shape() == entry.value.shape() && place.dtype() == entry.value.dtype();
    if (fits) place.copy_from(entry.value);
    state_.set(entry.name, fits ? place : entry.value.clone());
  }
  return loss;
}

}  // namespace monoid

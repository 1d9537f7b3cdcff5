#include "monoid/models/carried_state.h"

#include "monoid/models/min_lm.h"
#include "monoid/models/train_step.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

MinLm make(DType dtype = DType::f64, Device device = kCpu, double dropout = 0) {
  Generator init(1);
  MinLm model({.num_tokens = 11, .dim = 6, .depth = 2, .enable_conv = true, .dropout = dropout}, init);
  cast_to(model, dtype);
  move_to(model, device);
  return model;
}

Tensors segment(uint64_t seed) {
  Generator generator(seed);
  return {random_integers({3, 7}, generator, 11), random_integers({3, 7}, generator, 11)};
}

Tensors gradients_of(MinLm& model) {
  Tensors found;
  for (const NamedTensor& parameter : parameters(model)) found.push_back(parameter.value.grad().clone());
  zero_grad(model);
  return found;
}

void check_same(const Tensors& a, const Tensors& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) test::check_identical(a[i], b[i]);
}

}  // namespace

TEST_CASE("carried segments compute what a state handed on by hand does, and gradients end between them",
          "[carried_state]") {
  MinLm model = make();
  CarriedState carried;
  State state;
  for (uint64_t i = 0; i < 4; ++i) {
    CAPTURE(i);
    const Tensors batch = segment(i);
    const bool fresh = i == 0 || i == 2;
    if (fresh) state.clear();
    Tensor loss, expected;
    {
      Tape tape;
      loss = carried.loss(model, batch[0], batch[1], fresh);
      tape.backward(loss);
    }
    const Tensors gradients = gradients_of(model);
    {
      Tape tape;
      expected = model.loss(batch[0], batch[1], &state);
      tape.backward(expected);
      state.detach();
    }
    test::check_identical(loss.detach(), expected.detach());
    check_same(gradients, gradients_of(model));
    REQUIRE(carried.state().size() == state.size());
    for (const NamedTensor& entry : state.tensors())
      test::check_identical(carried.state().find(entry.name), entry.value);
  }
}

TEST_CASE("a carried state stays in its memory, and goes on from a saved one", "[carried_state]") {
  MinLm model = make();
  CarriedState carried, resumed;
  CHECK_THROWS_WITH(carried.loss(model, segment(1)[0], segment(1)[1], false),
                    ContainsSubstring("minlm: there is no state to carry on"));
  carried.loss(model, segment(1)[0], segment(1)[1], true);
  const void* place = carried.state().tensors()[0].value.raw();
  State saved;
  for (const NamedTensor& entry : carried.state().tensors()) saved.set(entry.name, entry.value.clone());
  resumed.set_state(saved);
  const Tensor next = carried.loss(model, segment(2)[0], segment(2)[1], false);
  CHECK(carried.state().tensors()[0].value.raw() == place);
  test::check_identical(resumed.loss(model, segment(2)[0], segment(2)[1], false), next);
}

TEST_CASE("training steps with a carried state: captured, eager and on the CPU", "[carried_state][cuda][graph]") {
  if (!test::cuda_or_skip()) return;
  const auto train = [](Device device, bool graph) {
    MinLm model = make(DType::f32, device, 0.1);
    ParameterGroup group{.name = "all"};
    for (const NamedTensor& parameter : parameters(model)) group.parameters.push_back(parameter.value);
    AdamW optimizer({group}, {});
    CarriedState carried;
    TrainStep step(device,
                   [&](const Tensors& batch, Generator* random) {
                     return carried.loss(model, batch[0], batch[1], batch.size() > 2, random);
                   },
                   optimizer, {.clip = 1, .graph = graph});
    Generator random(5);
    Tensors found;
    for (uint64_t i = 0; i < 12; ++i) {
      Tensors batch = segment(i);
      if (i % 5 == 0) batch.push_back(Tensor::zeros({1}, DType::i64));
      const StepResult result = step.run(std::vector<Tensors>{batch, segment(100 + i)}, 1e-2, &random).wait();
      found.push_back(Tensor::scalar(result.loss, DType::f64));
    }
    for (const NamedTensor& parameter : parameters(model)) found.push_back(parameter.value.detach().to(kCpu));
    for (const NamedTensor& entry : carried.state().tensors()) found.push_back(entry.value.to(kCpu));
    return found;
  };
  const Tensors captured = train(test::kCuda, true), eager = train(test::kCuda, false), host = train(kCpu, false);
  check_same(captured, eager);
  for (size_t i = 0; i < host.size(); ++i) test::check_close_in_norm(captured[i], host[i], 1e-3);
}

}  // namespace monoid

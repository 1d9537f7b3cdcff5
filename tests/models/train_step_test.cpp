#include "monoid/models/train_step.h"

#include <cmath>
#include <limits>

#include "monoid/models/decoder.h"
#include "monoid/models/min_lm.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

using test::check_identical;
using test::cuda_or_skip;
using test::kCuda;

struct Trained {
  std::vector<StepResult> results;
  std::vector<Tensor> parameters;  // on the CPU
};

struct Case {
  Device device = kCpu;
  DType dtype = DType::f32;
  bool graph = true;
  bool use_lstm = false;
  int64_t accumulate = 1;
  int64_t steps = 6;
  double dropout = 0.1;
  bool recompute = false;
  std::vector<int64_t> times = {9};  // of the batches, in turn
};

MinLm make_model(const Case& how) {
  Generator init(3);
  MinLm model(
      {.num_tokens = 40, .dim = 24, .depth = 2, .use_lstm = how.use_lstm, .enable_conv = true, .dropout = how.dropout},
      init);
  cast_to(model, how.dtype);
  move_to(model, how.device);
  return model;
}

AdamW make_optimizer(MinLm& model) {
  ParameterGroup group{.name = "all", .weight_decay = 0.1};
  for (const NamedTensor& parameter : parameters(model)) group.parameters.push_back(parameter.value);
  return AdamW({group}, {.learning_rate = 1e-2});
}

Trained train(const Case& how) {
  MinLm model = make_model(how);
  model.recompute_layers(how.recompute);
  AdamW optimizer = make_optimizer(model);
  TrainStep step(
      how.device,
      [&](const Tensors& batch, Generator* random) { return model.loss(batch[0], batch[1], nullptr, random); },
      optimizer, {.clip = 0.5, .graph = how.graph});
  Generator data(11), random(12);
  Trained trained;
  std::optional<PendingStep> before;
  for (int64_t i = 0; i < how.steps; ++i) {
    const int64_t time = how.times[static_cast<size_t>(i) % how.times.size()];
    std::vector<Tensors> batches;
    for (int64_t n = 0; n < how.accumulate; ++n)
      batches.push_back({random_integers({3, time}, data, 40), random_integers({3, time}, data, 40)});
    const PendingStep pending = step.run(batches, 1e-2 / static_cast<double>(i + 1), &random);
    if (before) trained.results.push_back(before->wait());
    before = pending;
  }
  trained.results.push_back(before->wait());
  for (const NamedTensor& parameter : parameters(model))
    trained.parameters.push_back(parameter.value.detach().to(kCpu));
  return trained;
}

void check_same(const Trained& a, const Trained& b) {
  for (size_t i = 0; i < a.results.size(); ++i) {
    CAPTURE(i);
    CHECK(a.results[i].loss == b.results[i].loss);
    CHECK(a.results[i].gradient_norm == b.results[i].gradient_norm);
  }
  for (size_t i = 0; i < a.parameters.size(); ++i) check_identical(a.parameters[i], b.parameters[i]);
}

}  // namespace

TEST_CASE("a TrainStep is the loop that one would write", "[train_step]") {
  const Case how{.accumulate = 2};
  const Trained trained = train(how);
  MinLm model = make_model(how);
  AdamW optimizer = make_optimizer(model);
  Generator data(11), random(12);
  for (int64_t i = 0; i < how.steps; ++i) {
    optimizer.zero_grad();
    double loss = 0;
    for (int n = 0; n < 2; ++n) {
      const Tensor tokens = random_integers({3, 9}, data, 40), targets = random_integers({3, 9}, data, 40);
      Tape tape;
      const Tensor part = model.loss(tokens, targets, nullptr, &random);
      loss += part.item() / 2;
      tape.backward(part, Tensor::scalar(0.5));
    }
    const auto place = static_cast<size_t>(i);
    CHECK(trained.results[place].loss == Approx(loss).epsilon(1e-12));
    CHECK(trained.results[place].gradient_norm == optimizer.clip(0.5));
    optimizer.step(1e-2 / static_cast<double>(i + 1));
  }
  size_t place = 0;
  for (const NamedTensor& parameter : parameters(model))
    check_identical(parameter.value.detach(), trained.parameters[place++]);
}

TEST_CASE("a gradient that is not finite changes no parameter", "[train_step]") {
  for (const Device device : {kCpu, kCuda}) {
    if (device.is_cuda() && !cuda_or_skip()) return;
    Tensor weight = Tensor::ones({3}, DType::f32, device).set_requires_grad();
    AdamW optimizer({{.name = "all", .parameters = {weight}}}, {.weight_decay = 0.1});
    TrainStep step(device, [&](const Tensors& batch, Generator*) { return sum(weight * batch[0]); }, optimizer,
                   {.clip = 1});
    const Tensor good = Tensor::full({3}, 2), bad = Tensor::full({3}, std::numeric_limits<double>::infinity());
    for (int i = 0; i < 3; ++i) step.run(std::vector<Tensors>{{good}}, 0.1);
    const Tensor before = weight.detach().to(kCpu).clone();
    const StepResult result = step.run(std::vector<Tensors>{{bad}}, 0.1).wait();
    CHECK_FALSE(std::isfinite(result.gradient_norm));
    check_identical(weight.detach().to(kCpu), before);
    step.run(std::vector<Tensors>{{good}}, 0.1).wait();
    CHECK(weight.to_vector<float>()[0] < before.to_vector<float>()[0]);
  }
}

TEST_CASE("TrainStep's errors say what does not fit", "[train_step]") {
  Tensor weight = Tensor::ones({3}).set_requires_grad();
  AdamW optimizer({{.name = "all", .parameters = {weight}}}, {});
  TrainStep step(
      kCpu, [&](const Tensors& batch, Generator*) { return sum(weight * batch[0]); }, optimizer);
  CHECK_THROWS_WITH(step.run({}, 0.1), ContainsSubstring("no batches"));
  CHECK_THROWS_WITH(PendingStep().wait(), ContainsSubstring("never queued"));
  CHECK_THROWS_WITH(TrainStep(kCpu, {}, optimizer, {.clip = -1}), ContainsSubstring("clip is -1"));
}

TEST_CASE("a captured step has the bits of an eager one", "[train_step][cuda][graph]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool use_lstm : {false, true}) {
      CAPTURE(dtype, use_lstm);
      Case how{.device = kCuda, .dtype = dtype, .use_lstm = use_lstm, .accumulate = 2, .times = {9, 5}};
      const Trained captured = train(how);
      how.graph = false;
      check_same(captured, train(how));
      how.graph = true;
      check_same(captured, train(how));
      how.recompute = true;
      check_same(captured, train(how));
    }
  }
}

TEST_CASE("a second GPU trains as the first does, captured or not, bit for bit", "[train_step][cuda][graph][two]") {
  if (!test::second_cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    const Trained first = train({.device = kCuda, .dtype = dtype});
    check_same(first, train({.device = test::kSecondCuda, .dtype = dtype}));
    check_same(first, train({.device = test::kSecondCuda, .dtype = dtype, .graph = false}));
  }
}

TEST_CASE("a step on the GPU follows the one on the CPU", "[train_step][cuda]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Trained there = train({.device = kCuda, .dtype = dtype}), here = train({});
    const double tolerance = dtype == DType::f32 ? 1e-4 : 3e-2;
    for (size_t i = 0; i < here.results.size(); ++i) {
      CAPTURE(dtype, i);
      CHECK(there.results[i].loss == Approx(here.results[i].loss).epsilon(tolerance));
      CHECK(there.results[i].gradient_norm == Approx(here.results[i].gradient_norm).epsilon(10 * tolerance));
    }
  }
}

TEST_CASE("a loss that looks at values cannot be captured, and the error names the op", "[train_step][cuda][graph]") {
  if (!cuda_or_skip()) return;
  Tensor weight = Tensor::ones({3}, DType::f32, kCuda).set_requires_grad();
  AdamW optimizer({{.name = "all", .parameters = {weight}}}, {});
  TrainStep step(
      kCuda,
      [&](const Tensors& batch, Generator*) {
        const Tensor loss = sum(weight * batch[0]);
        loss.item();
        return loss;
      },
      optimizer);
  const std::vector<Tensors> batches{{Tensor::ones({3})}};
  step.run(batches, 0.1).wait();
  CHECK_THROWS_WITH(step.run(batches, 0.1), ContainsSubstring("after 'sum'"));
}

TEST_CASE("a decoder gives the logits of the whole sequence, captured or not", "[decoder]") {
  for (const Case& how : {Case{}, Case{.use_lstm = true}, Case{.device = kCuda}, Case{.device = kCuda, .graph = false},
                          Case{.device = kCuda, .dtype = DType::bf16, .use_lstm = true}}) {
    if (how.device.is_cuda() && !is_available(kCuda)) continue;
    CAPTURE(how.device, how.dtype, how.graph);
    MinLm model = make_model(how);
    Generator data(5);
    constexpr int64_t kTime = 9, kPrefix = 4;
    const Tensor tokens = random_integers({3, kTime}, data, 40);
    const Tensor whole = model.forward(tokens.to(how.device)).to(DType::f32).to(kCpu);
    Decoder decoder(model, 3, how.graph);
    for (int round = 0; round < 2; ++round) {
      for (int64_t t = kPrefix - 1; t < kTime; ++t) {
        const Tensor logits = t == kPrefix - 1 ? decoder.prefill(tokens.as_strided({3, kPrefix}, {kTime, 1}, 0).clone())
                                               : decoder.step(tokens.as_strided({3}, {kTime}, t).clone());
        test::check_close_in_norm(logits, whole.as_strided({3, 40}, {kTime * 40, 1}, t * 40).clone(),
                                  how.dtype == DType::bf16 ? 3e-2 : 1e-5);
      }
    }
  }
}

}  // namespace monoid

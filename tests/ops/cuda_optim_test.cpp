#include <cmath>

#include "monoid/core/random.h"
#include "monoid/ops/optim.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

using test::check_close;
using test::check_identical;
using test::cuda_or_skip;
using test::kCuda;

constexpr std::array<int64_t, 7> kSizes{1, 3, 31, 8191, 8192, 8193, 100'003};

struct Model {
  Tensors parameters;
  AdamW optimizer;
};

// Parameters of awkward sizes in two groups, the same numbers everywhere. The last is off the 16-byte grid.
Model make(Device device, DType dtype) {
  Generator generator(1);
  Tensors parameters;
  for (int64_t size : kSizes) {
    const Tensor numbers = random_normal({size}, generator).to(DType::bf16).to(dtype);
    if (size == kSizes.back()) {
      Tensor larger = Tensor::zeros({size + 1}, dtype, device);
      parameters.push_back(larger.as_strided({size}, {1}, 1));
      parameters.back().copy_from(numbers);
    } else {
      parameters.push_back(numbers.to(device));
    }
    parameters.back().set_requires_grad();
  }
  const auto middle = parameters.begin() + 3;
  return {parameters,
          AdamW({{.name = "a", .parameters = {parameters.begin(), middle}, .learning_rate_scale = 0.5, .clip_norm = 1},
                 {.name = "b", .parameters = {middle, parameters.end()}, .weight_decay = 0.1, .clip_norm = 0.5}},
                {.beta2 = 0.99})};
}

void draw_gradients(Model& model, uint64_t seed) {
  Generator generator(seed);
  for (Tensor& parameter : model.parameters) {
    const Tensor gradient = random_normal(parameter.shape(), generator).to(DType::bf16);
    parameter.set_grad(gradient.to(parameter.dtype()).to(parameter.device()));
  }
}

}  // namespace

TEST_CASE("AdamW and clipping on the GPU are those of the CPU", "[optim][cuda]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const double norm : {0.0, 2.0}) {
      CAPTURE(dtype, norm);
      Model there = make(kCuda, dtype), here = make(kCpu, DType::f32);
      for (uint64_t step = 0; step < 4; ++step) {
        draw_gradients(there, 10 + step);
        draw_gradients(here, 10 + step);
        for (Model* model : {&there, &here}) model->optimizer.set_learning_rate(0.01);
        const double found = there.optimizer.clip_and_step(norm).item();
        CHECK(found == Approx(here.optimizer.clip_and_step(norm).item()).epsilon(1e-12));
      }
      const auto states = there.optimizer.state(), expected = here.optimizer.state();
      for (const auto& [name, tensor] : expected) {
        CAPTURE(name);
        if (tensor.dtype() == DType::i64) {
          check_identical(states.at(name).to(kCpu), tensor);
        } else {
          check_close(states.at(name).to(kCpu), tensor, 1e-6, 1e-7);
        }
      }
      for (size_t i = 0; i < kSizes.size(); ++i) {
        const double tolerance = dtype == DType::f32 ? 1e-6 : 0x1p-8;
        check_close(there.parameters[i].detach().to(kCpu).to(DType::f32), here.parameters[i].detach(), tolerance, 1e-6);
      }
    }
  }
}

TEST_CASE("the scaling clip of the GPU is that of the CPU", "[optim][cuda]") {
  if (!cuda_or_skip()) return;
  Model there = make(kCuda, DType::f32), here = make(kCpu, DType::f32);
  draw_gradients(there, 3);
  draw_gradients(here, 3);
  CHECK(there.optimizer.clip() == Approx(here.optimizer.clip()).epsilon(1e-12));
  for (size_t i = 0; i < kSizes.size(); ++i)
    check_close(there.parameters[i].grad().to(kCpu), here.parameters[i].grad(), 1e-6, 1e-7);
}

TEST_CASE("a thousand parameters are updated as one", "[optim][cuda]") {
  if (!cuda_or_skip()) return;
  Tensors parameters;
  for (int i = 0; i < 1000; ++i) {
    parameters.push_back(Tensor::ones({i % 7 + 1}, DType::f32, kCuda).set_requires_grad());
    parameters.back().set_grad(Tensor::full({i % 7 + 1}, 0.5, DType::f32, kCuda));
  }
  AdamW optimizer({{.name = "all", .parameters = parameters}}, {.epsilon = 0});
  optimizer.step(0.25);
  for (const Tensor& parameter : parameters)
    check_close(parameter.detach().to(kCpu), Tensor::full(parameter.shape(), 0.75), 1e-6);
}

TEST_CASE("updates on the GPU have the same bits every time", "[optim][cuda]") {
  if (!cuda_or_skip()) return;
  test::check_repeats([] {
    Model model = make(kCuda, DType::bf16);
    draw_gradients(model, 7);
    std::vector<Tensor> results{model.optimizer.clip_and_step(1).to(kCpu)};
    for (const Tensor& parameter : model.parameters) results.push_back(parameter.detach().to(kCpu));
    return results;
  });
}

TEST_CASE("a bf16 run is saved and resumed with its masters", "[optim][cuda]") {
  if (!cuda_or_skip()) return;
  Model whole = make(kCuda, DType::bf16), half = make(kCuda, DType::bf16);
  for (uint64_t step = 0; step < 2; ++step) {
    for (Model* model : {&whole, &half}) {
      draw_gradients(*model, step);
      model->optimizer.step(1e-4);
    }
  }
  Model rest = make(kCuda, DType::bf16);
  for (size_t i = 0; i < kSizes.size(); ++i) rest.parameters[i].copy_from(half.parameters[i]);
  rest.optimizer.load_state(half.optimizer.state());
  for (Model* model : {&whole, &rest}) {
    draw_gradients(*model, 9);
    model->optimizer.step(1e-4);
  }
  for (size_t i = 0; i < kSizes.size(); ++i)
    check_identical(rest.parameters[i].detach().to(kCpu), whole.parameters[i].detach().to(kCpu));
}

}  // namespace monoid

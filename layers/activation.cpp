#include "monoid/layers/activation.h"

#include <numbers>

#include "monoid/ops/elementwise.h"

namespace monoid {
namespace {

Tensor exact_gelu(const Tensor& x) { return gelu(x); }
Tensor tanh_gelu(const Tensor& x) { return gelu(x, GeluForm::tanh); }

struct Named {
  const char* name;
  Tensor (*function)(const Tensor&);
};
const Named kActivations[] = {
    {"gelu", exact_gelu},
    {"gelu_python", exact_gelu},
    {"gelu_10", [](const Tensor& x) { return clamp(gelu(x), -10, 10); }},
    {"gelu_new", tanh_gelu},
    {"gelu_pytorch_tanh", tanh_gelu},
    {"gelu_fast", tanh_gelu},
    {"gelu_accurate", tanh_gelu},
    {"quick_gelu", [](const Tensor& x) { return x * sigmoid(1.702 * x); }},
    {"silu", silu},
    {"swish", silu},
    {"mish", [](const Tensor& x) { return x * tanh(softplus(x)); }},
    {"relu", relu},
    {"relu2", [](const Tensor& x) { return square(relu(x)); }},
    {"relu6", [](const Tensor& x) { return clamp(x, 0, 6); }},
    {"leaky_relu", [](const Tensor& x) { return maximum(x, 0.01 * x); }},
    {"laplace", [](const Tensor& x) { return 0.5 * (1 + erf((x - 0.707107) / (0.282095 * std::numbers::sqrt2))); }},
    {"tanh", tanh},
    {"sigmoid", sigmoid},
    {"linear", [](const Tensor& x) { return x; }},
};

}  // namespace

ActivationFunction::ActivationFunction(const std::string& owner, const std::string& key, const std::string& name) {
  std::string known;
  for (const Named& each : kActivations) {
    if (name == each.name) {
      function_ = each.function;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(each.name);
  }
  fail(std::string_view(owner), ": ", key, " is '", name, "'; wanted one of ", known);
}

}  // namespace monoid

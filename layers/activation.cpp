#include "monoid/layers/activation.h"

#include "monoid/ops/elementwise.h"

namespace monoid {
namespace {

struct Named {
  const char* name;
  Tensor (*function)(const Tensor&);
};
const Named kActivations[] = {
    {"gelu", [](const Tensor& x) { return gelu(x); }},
    {"gelu_new", [](const Tensor& x) { return gelu(x, GeluForm::tanh); }},
    {"gelu_pytorch_tanh", [](const Tensor& x) { return gelu(x, GeluForm::tanh); }},
    {"silu", silu},
    {"swish", silu},
    {"relu", relu},
    {"tanh", tanh},
    {"sigmoid", sigmoid},
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

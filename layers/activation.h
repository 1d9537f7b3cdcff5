#pragma once

#include <string>

#include "monoid/core/tape.h"

namespace monoid {

/// A function between two projections, by the name that Hugging Face's configurations give it.
class ActivationFunction {
 public:
  /// "gelu" (exact), "gelu_new" (by tanh), "silu" or "swish", "relu", "tanh", "sigmoid" and the rest of their list;
  /// another name is an Error that begins with `owner` and the configuration key it came from.
  ActivationFunction(const std::string& owner, const std::string& key, const std::string& name);

  Tensor operator()(const Tensor& x) const { return function_(x); }

 private:
  Tensor (*function_)(const Tensor&);
};

}  // namespace monoid

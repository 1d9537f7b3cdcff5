#pragma once

#include <string>

#include "monoid/ops/registry.h"

namespace monoid::test {

/// Compares the tape's gradient of <cotangent, run(inputs)> with central differences in f64, for a random cotangent and
/// every element of every floating-point input. Reports op, input, index and both values of each mismatch to Catch.
void check_gradients(const std::string& op, const OpSample& sample, double eps = 1e-5, double tolerance = 1e-7);

}  // namespace monoid::test

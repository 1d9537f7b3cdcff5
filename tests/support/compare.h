#pragma once

#include <string>

#include "monoid/core/tensor.h"

namespace monoid::test {

/// Checks |actual - expected| <= absolute + relative * |expected| element by element (NaN equals NaN, infinities must
/// agree), and reports the first mismatches with index and both values. Shapes must be equal.
void check_close(const Tensor& actual, const Tensor& expected, double relative, double absolute = 0);
/// Checks max|actual - expected| <= tolerance * max(max|expected|, least): the right measure where elements cancel.
/// `least` is for tensors that are 0 but for rounding.
void check_close_in_norm(const Tensor& actual, const Tensor& expected, double tolerance, double least = 0);
/// Checks equal shapes, dtypes and bits.
void check_identical(const Tensor& actual, const Tensor& expected);

}  // namespace monoid::test

#pragma once

#include <cstdint>

namespace monoid {

/// How matrix products of f32 are computed on a GPU. tf32 rounds the operands to 11 bits (relative error 5e-4) and is
/// several times faster; exact multiplies and adds in f32.
enum class MatmulPrecision : uint8_t { exact, tf32 };

/// For the whole process; exact until set.
void set_matmul_precision(MatmulPrecision precision);
MatmulPrecision matmul_precision();

}  // namespace monoid

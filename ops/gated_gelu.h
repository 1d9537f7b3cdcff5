#pragma once

#include "monoid/core/tape.h"

namespace monoid {

/// x [..., 2 * channel], values and then gates -> value * gelu(gate) [..., channel], with the exact (erf) GELU: what a
/// GEGLU feed-forward does between its products (Shazeer, "GLU variants improve transformer", 2020). One pass, and one
/// backward. f32 or f64, on CUDA f32 or bf16.
Tensor gated_gelu(const Tensor& x);

}  // namespace monoid

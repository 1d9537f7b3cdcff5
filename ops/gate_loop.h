#pragma once

#include "monoid/core/tape.h"
#include "monoid/kernels/gate_loop.h"

namespace monoid {

/// What a scan reads out of its states each step, [batch, time, inner], and the last state: pass it as the initial one
/// of the next stretch of the same sequence. Both are differentiable.
struct GateLoopResult {
  Tensor output;
  Tensor final;
};

/// GateLoop (Katsch, "GateLoop: fully data-controlled linear recurrence for sequence modeling", 2023):
/// S_t = a_t S_{t-1} + k_t v_t^T with one complex a_t = sigmoid(|z_t|) z_t / |z_t| a head, y_t = q_t^T Re(S_t).
/// qkv [batch, time, 3 * inner] is the packed projection, q first, and may be a strided view with adjacent channels;
/// its gradient comes back packed. z [batch, time, head, 2] holds real and imaginary parts; d = inner / head channels
/// belong to a head. States are [batch, head, d, d, 2], rows of k, columns of v. f32 or f64, and on CUDA f32 or bf16.
///
/// With as many heads as channels a head is one number, and all is done channel by channel. The gradient of z is 0 at
/// z = 0, where a is 1/2; options.gradient_fraction scales it.
GateLoopResult gate_loop_scan(const Tensor& qkv, const Tensor& z, const GateLoopOptions& options = {},
                              const Tensor& initial = {});

/// SimpleGateLoop: h_t = sigmoid(a_t) h_{t-1} + kv_t, y_t = q_t h_t from the packed projection
/// [batch, time, 3 * channel] in the order q, kv, a. States are [batch, channel]. In reverse, time runs from the end.
GateLoopResult simple_gate_loop_scan(const Tensor& packed, const Tensor& initial = {},
                                     Direction direction = Direction::forward);

}  // namespace monoid

#pragma once

#include "monoid/core/kernel.h"
#include "monoid/kernels/scan.h"

namespace monoid {

/// What the state of GateLoop is multiplied with each step: sigmoid(|z|) z / |z|, the same of the real part of z alone,
/// or 1.
enum class Transition { complex, real, one };

struct GateLoopOptions {
  Transition transition = Transition::complex;
  double gradient_fraction = 1;  // how much of its gradient z gets
};

// Complex numbers are pairs along a trailing axis of 2. Sequences may be strided views whose channels are adjacent;
// states, and all that a kernel writes, are contiguous. `initial` and cotangents may be undefined (zero); an
// `initial_gradient` is where an initial state is.

/// states_t = a_t states_{t-1} + b_t over [batch, time, channel, 2]; a gradient is that of the real and imaginary
/// parts.
using ComplexScan = LinearScan;
using ComplexScanGradient = LinearScanGradient;

/// GateLoop with a channel a head: h_t = a_t h_{t-1} + k_t v_t, y_t = q_t Re(h_t). qkv [batch, time, 3 * channel],
/// z [batch, time, channel, 2], states [batch, channel, 1, 1, 2]. `kept` [batch, recall_groups(time), channel, 2] gets
/// the states of kernels/recall.h, in f32 for bf16; undefined: no gradient is coming.
using GateLoopScan = void(const Tensor& qkv, const Tensor& z, const Tensor& initial, Tensor& y, Tensor& final,
                          Tensor& kept, const GateLoopOptions& options);
using GateLoopScanGradient = void(const Tensor& qkv, const Tensor& z, const Tensor& kept, const Tensor& y_cotangent,
                                  const Tensor& final_cotangent, Tensor& qkv_gradient, Tensor& z_gradient,
                                  Tensor& initial_gradient, const GateLoopOptions& options);

/// GateLoop with heads of several channels: S_t = a_t S_{t-1} + k_t v_t^T, y_t = q_t^T Re(S_t) per head.
/// z [batch, time, head, 2], states [batch, head, d, d, 2]. Nothing is kept: the gradient makes the states again.
using GateLoopOuterScan = void(const Tensor& qkv, const Tensor& z, const Tensor& initial, Tensor& y, Tensor& final,
                               const GateLoopOptions& options);
using GateLoopOuterScanGradient = void(const Tensor& qkv, const Tensor& z, const Tensor& initial,
                                       const Tensor& y_cotangent, const Tensor& final_cotangent, Tensor& qkv_gradient,
                                       Tensor& z_gradient, Tensor& initial_gradient, const GateLoopOptions& options);

/// h_t = sigmoid(a_t) h_{t-1} + kv_t, y_t = q_t h_t from [q | kv | a] along the last axis; states [batch, channel],
/// kept [batch, recall_groups(time), channel].
using SimpleGateLoopScan = void(const Tensor& packed, const Tensor& initial, Tensor& y, Tensor& final, Tensor& kept,
                                Direction direction);
using SimpleGateLoopScanGradient = void(const Tensor& packed, const Tensor& kept, const Tensor& y_cotangent,
                                        const Tensor& final_cotangent, Tensor& packed_gradient,
                                        Tensor& initial_gradient, Direction direction);

namespace kernels {
inline constinit Kernel<ComplexScan> complex_scan{"complex_scan"};
inline constinit Kernel<ComplexScanGradient> complex_scan_gradient{"complex_scan_gradient"};
inline constinit Kernel<GateLoopScan> gate_loop_scan{"gate_loop_scan"};
inline constinit Kernel<GateLoopScanGradient> gate_loop_scan_gradient{"gate_loop_scan_gradient"};
inline constinit Kernel<GateLoopOuterScan> gate_loop_outer_scan{"gate_loop_outer_scan"};
inline constinit Kernel<GateLoopOuterScanGradient> gate_loop_outer_scan_gradient{"gate_loop_outer_scan_gradient"};
inline constinit Kernel<SimpleGateLoopScan> simple_gate_loop_scan{"simple_gate_loop_scan"};
inline constinit Kernel<SimpleGateLoopScanGradient> simple_gate_loop_scan_gradient{"simple_gate_loop_scan_gradient"};
}  // namespace kernels

namespace cpu {
ComplexScan complex_scan;
ComplexScanGradient complex_scan_gradient;
GateLoopScan gate_loop_scan;
GateLoopScanGradient gate_loop_scan_gradient;
GateLoopOuterScan gate_loop_outer_scan;
GateLoopOuterScanGradient gate_loop_outer_scan_gradient;
SimpleGateLoopScan simple_gate_loop_scan;
SimpleGateLoopScanGradient simple_gate_loop_scan_gradient;
}  // namespace cpu

namespace cuda {
ComplexScan complex_scan;
ComplexScanGradient complex_scan_gradient;
GateLoopScan gate_loop_scan;
GateLoopScanGradient gate_loop_scan_gradient;
GateLoopOuterScan gate_loop_outer_scan;
GateLoopOuterScanGradient gate_loop_outer_scan_gradient;
SimpleGateLoopScan simple_gate_loop_scan;
SimpleGateLoopScanGradient simple_gate_loop_scan_gradient;
}  // namespace cuda

}  // namespace monoid

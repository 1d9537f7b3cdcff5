#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// Which way time runs in a scan. In reverse the state enters after the last step and the final one is at time 0.
enum class Direction { forward, reverse };

// Scans over [batch, time, channel] with a state of [batch, channel]. Sequences may be strided views whose channels are
// adjacent; what a kernel writes is contiguous. `initial` may be undefined: no state. A gradient kernel may get
// undefined cotangents (zero) and must get an undefined `initial_gradient` where there is no initial.

/// states_t = a_t states_{t-1} + b_t; final is the last of them (time 0 in reverse).
using LinearScan = void(const Tensor& a, const Tensor& b, const Tensor& initial, Tensor& states, Tensor& final,
                        Direction direction);
using LinearScanGradient = void(const Tensor& a, const Tensor& initial, const Tensor& states,
                                const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& a_gradient,
                                Tensor& b_gradient, Tensor& initial_gradient, Direction direction);

/// The same on logarithms: states_t = log(exp(log_a_t + states_{t-1}) + exp(log_b_t)).
using LogScan = void(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, Tensor& states, Tensor& final,
                     Direction direction);
using LogScanGradient = void(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, const Tensor& states,
                             const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& log_a_gradient,
                             Tensor& log_b_gradient, Tensor& log_initial_gradient, Direction direction);

/// Gated averages of a packed projection: [hidden | gate] (minGRU) or [hidden | f | i] (minLSTM) along the last axis.
using GatedScan = void(const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final);
using GatedScanGradient = void(const Tensor& packed, const Tensor& initial, const Tensor& states,
                               const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                               Tensor& initial_gradient);

namespace kernels {
inline constinit Kernel<LinearScan> linear_scan{"linear_scan"};
inline constinit Kernel<LinearScanGradient> linear_scan_gradient{"linear_scan_gradient"};
inline constinit Kernel<LogScan> log_scan{"log_scan"};
inline constinit Kernel<LogScanGradient> log_scan_gradient{"log_scan_gradient"};
inline constinit Kernel<GatedScan> min_gru_scan{"min_gru_scan"};
inline constinit Kernel<GatedScanGradient> min_gru_scan_gradient{"min_gru_scan_gradient"};
inline constinit Kernel<GatedScan> min_lstm_scan{"min_lstm_scan"};
inline constinit Kernel<GatedScanGradient> min_lstm_scan_gradient{"min_lstm_scan_gradient"};
}  // namespace kernels

namespace cpu {
LinearScan linear_scan;
LinearScanGradient linear_scan_gradient;
LogScan log_scan;
LogScanGradient log_scan_gradient;
GatedScan min_gru_scan;
GatedScanGradient min_gru_scan_gradient;
GatedScan min_lstm_scan;
GatedScanGradient min_lstm_scan_gradient;
}  // namespace cpu

namespace cuda {
LinearScan linear_scan;
LinearScanGradient linear_scan_gradient;
LogScan log_scan;
LogScanGradient log_scan_gradient;
GatedScan min_gru_scan;
GatedScanGradient min_gru_scan_gradient;
GatedScan min_lstm_scan;
GatedScanGradient min_lstm_scan_gradient;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include "monoid/core/tape.h"
#include "monoid/kernels/scan.h"

namespace monoid {

/// Every state of a scan, [batch, time, channel], and the last one, [batch, channel]: pass `final` as the initial state
/// of the next stretch of the same sequence. In reverse, `final` is the state at time 0. Both are differentiable.
struct ScanResult {
  Tensor states;
  Tensor final;
};

// Shared by all scans here. f32 or f64; any batch, time and channel count, 0 included. Sequences may be strided views
// with positive strides and adjacent channels, such as a slice of a wider projection; they are read in place. `initial`
// is [batch, channel]; left out, no state enters (with time 0, `final` is then the state that stands for none). Every
// input gets its gradient. Other shapes, dtypes and strides are an Error.

/// states_t = a_t states_{t-1} + b_t, for any real a and b.
ScanResult linear_scan(const Tensor& a, const Tensor& b, const Tensor& initial = {},
                       Direction direction = Direction::forward);

/// The linear scan of positive numbers given and returned as logarithms:
/// states_t = log(exp(log_a_t + states_{t-1}) + exp(log_b_t)). -inf stands for 0 anywhere, and its gradient is 0.
/// Left out, the initial state is -inf. (Heinsen, "Efficient parallelization of a ubiquitous sequential computation",
/// 2023, states the same recurrence; its form by cumulative sums loses all digits on long sequences.)
ScanResult log_scan(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial = {},
                    Direction direction = Direction::forward);

/// minGRU (Feng et al., "Were RNNs all we needed?", 2024) from the packed projection [batch, time, 2 * channel], hidden
/// first: h_t = (1 - z_t) h_{t-1} + z_t g(hidden_t) with z = sigmoid(gate), g(x) = x + 0.5 for x >= 0, else sigmoid(x).
/// A negative initial state is an Error; without one, h starts from 0.
ScanResult min_gru_scan(const Tensor& hidden_and_gate, const Tensor& initial = {});

/// minLSTM (same paper) from the packed projection [batch, time, 3 * channel], in the order hidden, f, i:
/// h_t = f'_t h_{t-1} + i'_t g(hidden_t) with f' = sigmoid(f) / (sigmoid(f) + sigmoid(i)), i' = 1 - f'.
ScanResult min_lstm_scan(const Tensor& hidden_and_f_i_gate, const Tensor& initial = {});

}  // namespace monoid

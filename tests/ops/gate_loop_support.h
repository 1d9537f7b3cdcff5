#pragma once

#include <complex>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/ops/gate_loop.h"
#include "monoid/tests/ops/scan_oracle.h"

// GateLoop as it is written on paper, on std::complex and with an angle.

namespace monoid::test {

using Number = std::complex<double>;

inline Number transition_of(Number z, Transition kind) {
  if (kind == Transition::one) return 1;
  if (kind == Transition::real) z = z.real();
  return std::polar(sigmoid_of(std::abs(z)), std::arg(z));
}

/// The output and the final state, in f64.
inline Tensors gate_loop_oracle(const Tensor& qkv, const Tensor& z, Transition kind = Transition::complex,
                                const Tensor& initial = {}) {
  const int64_t batch = qkv.size(0), time = qkv.size(1), inner = qkv.size(2) / 3, heads = z.size(2),
                size = inner / heads;
  const Grid packed(qkv);
  const std::vector<double> zs = z.to_vector<double>(),
                            start = initial.defined() ? initial.to_vector<double>() : std::vector<double>();
  Grid output(batch, time, inner);
  std::vector<double> final(static_cast<size_t>(batch * inner * size * 2));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<Number> state(static_cast<size_t>(size * size));
      const size_t place = static_cast<size_t>((b * heads + h) * size * size);
      for (size_t i = 0; i < state.size() && !start.empty(); ++i)
        state[i] = {start[2 * (place + i)], start[2 * (place + i) + 1]};
      for (int64_t t = 0; t < time; ++t) {
        const auto at = static_cast<size_t>(2 * ((b * time + t) * heads + h));
        const Number a = transition_of({zs[at], zs[at + 1]}, kind);
        for (int64_t i = 0; i < size; ++i) {
          for (int64_t j = 0; j < size; ++j) {
            Number& s = state[static_cast<size_t>(i * size + j)];
            s = a * s + packed.at(b, t, inner + h * size + i) * packed.at(b, t, 2 * inner + h * size + j);
            output.at(b, t, h * size + j) += packed.at(b, t, h * size + i) * s.real();
          }
        }
      }
      for (size_t i = 0; i < state.size(); ++i)
        final[2 * (place + i)] = state[i].real(), final[2 * (place + i) + 1] = state[i].imag();
    }
  }
  return {output.tensor(), Tensor::from(final, {batch, heads, size, size, 2})};
}

/// Gradients of <cotangents, outputs> for every defined input.
template <class Run>
Tensors read_out_gradients(const Tensors& inputs, const Tensors& cotangents, Run run) {
  return gradients_of(inputs, cotangents, [&](const Tensors& in) {
    const GateLoopResult result = run(in);
    return ScanResult{result.output, result.final};
  });
}

}  // namespace monoid::test

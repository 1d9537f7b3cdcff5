#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/core/random.h"
#include "monoid/ops/scan.h"

namespace monoid::test {

// Plain f64 loops that scans are held against: the recurrences as they are written on paper.

constexpr double kInf = std::numeric_limits<double>::infinity();

/// [batch, time, channel] numbers in f64, index by index.
struct Grid {
  int64_t batch, time, channel;
  std::vector<double> values;

  Grid(int64_t b, int64_t t, int64_t c) : batch(b), time(t), channel(c), values(static_cast<size_t>(b * t * c)) {}
  explicit Grid(const Tensor& x)
      : batch(x.size(0)), time(x.rank() == 3 ? x.size(1) : 1), channel(x.size(-1)), values(x.to_vector<double>()) {}

  double& at(int64_t b, int64_t t, int64_t c) { return values[static_cast<size_t>((b * time + t) * channel + c)]; }
  double at(int64_t b, int64_t t, int64_t c) const { return const_cast<Grid*>(this)->at(b, t, c); }
  Tensor tensor(DType dtype = DType::f64) const { return Tensor::from(values, {batch, time, channel}).to(dtype); }
};

inline double exact_g(double x) { return x >= 0 ? x + 0.5 : 1 / (1 + std::exp(-x)); }

/// Visits every (batch, channel) with a state, and every time step in scan order.
template <class Step>
Grid scan_oracle(int64_t batch, int64_t time, int64_t channel, Direction direction, const Tensor& initial, double empty,
                 Step step) {
  Grid states(batch, time, channel);
  const Grid entering = initial.defined() ? Grid(initial) : Grid(0, 0, 0);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t c = 0; c < channel; ++c) {
      double h = initial.defined() ? entering.at(b, 0, c) : empty;
      for (int64_t i = 0; i < time; ++i) {
        const int64_t t = direction == Direction::forward ? i : time - 1 - i;
        h = states.at(b, t, c) = step(b, t, c, h);
      }
    }
  }
  return states;
}

inline Grid linear_oracle(const Tensor& a, const Tensor& b, const Tensor& initial,
                          Direction direction = Direction::forward) {
  const Grid gates(a), inputs(b);
  return scan_oracle(
      gates.batch, gates.time, gates.channel, direction, initial, 0,
      [&](int64_t n, int64_t t, int64_t c, double h) { return gates.at(n, t, c) * h + inputs.at(n, t, c); });
}

inline double exact_logaddexp(double x, double y) {
  if (x == -kInf) return y;
  return std::max(x, y) + std::log1p(std::exp(-std::abs(x - y)));
}

inline Grid log_oracle(const Tensor& log_a, const Tensor& log_b, const Tensor& initial,
                       Direction direction = Direction::forward) {
  const Grid gates(log_a), inputs(log_b);
  return scan_oracle(gates.batch, gates.time, gates.channel, direction, initial, -kInf,
                     [&](int64_t n, int64_t t, int64_t c, double h) {
                       return exact_logaddexp(gates.at(n, t, c) + h, inputs.at(n, t, c));
                     });
}

inline double sigmoid_of(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

/// h + z (v - h) with the smaller of z and 1 - z exact.
inline Grid min_gru_oracle(const Tensor& packed, const Tensor& initial) {
  const Grid in(packed);
  const int64_t channels = in.channel / 2;
  return scan_oracle(in.batch, in.time, channels, Direction::forward, initial, 0,
                     [&](int64_t n, int64_t t, int64_t c, double h) {
                       const double k = in.at(n, t, channels + c), v = exact_g(in.at(n, t, c));
                       return k > 0 ? v + sigmoid_of(-k) * (h - v) : h + sigmoid_of(k) * (v - h);
                     });
}

inline double softplus_of(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

inline Grid min_lstm_oracle(const Tensor& packed, const Tensor& initial) {
  const Grid in(packed);
  const int64_t channels = in.channel / 3;
  return scan_oracle(in.batch, in.time, channels, Direction::forward, initial, 0,
                     [&](int64_t n, int64_t t, int64_t c, double h) {
                       const double f = in.at(n, t, channels + c), i = in.at(n, t, 2 * channels + c);
                       const double d = softplus_of(-f) - softplus_of(-i), v = exact_g(in.at(n, t, c));
                       return d > 0 ? v + sigmoid_of(-d) * (h - v) : h + sigmoid_of(d) * (v - h);
                     });
}

/// The rows [begin, end) of the time axis, as a view.
inline Tensor stretch(const Tensor& x, int64_t begin, int64_t end) {
  return x.as_strided({x.size(0), end - begin, x.size(2)}, x.strides(), x.offset() + begin * x.strides()[1]);
}

/// The last (or any) time step of [batch, time, channel], as [batch, channel].
inline Tensor step_of(const Tensor& x, int64_t time) {
  return x.as_strided({x.size(0), x.size(2)}, {x.strides()[0], x.strides()[2]}, x.offset() + time * x.strides()[1])
      .clone();
}

/// Restores the number of threads.
struct WithThreads {
  int before = threads();
  explicit WithThreads(int count) { set_threads(count); }
  ~WithThreads() { set_threads(before); }
};

/// Gradients of <cotangents, outputs> for the leaves among `inputs`, in their order.
template <class Run>
Tensors gradients_of(const Tensors& inputs, const Tensors& cotangents, Run run) {
  Tensors leaves;
  for (const Tensor& input : inputs) {
    leaves.push_back(input.defined() ? input.detach() : input);
    if (input.defined()) leaves.back().set_requires_grad();
  }
  Tape tape;
  const ScanResult result = run(leaves);
  tape.backward(Tensors{result.states, result.final}, cotangents);
  Tensors gradients;
  for (const Tensor& leaf : leaves) gradients.push_back(leaf.defined() ? leaf.grad() : leaf);
  return gradients;
}

}  // namespace monoid::test

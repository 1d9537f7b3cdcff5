// Linear and log scans: a step each for the recurrence and for its adjoint, which is a scan of the same kind in the
// other direction. The adjoint carries what the gradient of the next step sends back, carry_t = a_t (dh_t +
// carry_{t+1}), so the cotangent of the final state is its initial state, and what it ends with is the gradient of the
// initial one. Floor (elements moved per element): 3 forward, 5 or 6 backward; nothing is stored but the outputs.

#include "monoid/kernels/scan.h"

#include "monoid/kernels/cpu/scan_rows.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/monoid.h"

namespace monoid::cpu {
namespace {

struct VectorMath {
  template <class T>
  static T exp(T x) {
    return cpu::exp(x);
  }
  template <class T>
  static T log1p(T x) {
    return detail::log1p_unit(x);
  }
};

// ----------------------------------------------------------------------------------------------------------- linear

template <class T>
struct LinearStep {
  using Summary = Affine<T>;
  struct Row {
    const T *a, *b;
    T* states;

    Affine<T> element(int64_t c) const { return {a[c], b[c]}; }
    T advance(int64_t c, T h) const { return states[c] = element(c).advance(h); }
    T begin(int64_t c) const { return states[c] = b[c]; }
  };
  Rows<const T> a, b;
  Rows<T> states;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {a.at(batch, time, channel), b.at(batch, time, channel), states.at(batch, time, channel)};
  }
};

template <class T>
struct LinearAdjoint {
  using Summary = Affine<T>;
  struct Row {
    const T *a, *previous, *cotangent;
    T *a_gradient, *b_gradient;

    Affine<T> element(int64_t c) const { return {a[c], a[c] * cotangent[c]}; }
    T advance(int64_t c, T carry) const {
      const T delta = cotangent[c] + carry;
      a_gradient[c] = delta * previous[c];
      b_gradient[c] = delta;
      return a[c] * delta;
    }
    T begin(int64_t c) const { return advance(c, 0); }
  };
  Rows<const T> a;
  PreviousRows<T> previous;
  Rows<const T> cotangent;
  Rows<T> a_gradient, b_gradient;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {a.at(batch, time, channel), previous.at(batch, time, channel), cotangent.at(batch, time, channel),
            a_gradient.at(batch, time, channel), b_gradient.at(batch, time, channel)};
  }
};

// -------------------------------------------------------------------------------------------------------------- log

template <class T>
struct LogStep {
  using Summary = LogAffine<T, VectorMath>;
  struct Row {
    const T *log_a, *log_b;
    T* states;

    Summary element(int64_t c) const { return {log_a[c], log_b[c]}; }
    T advance(int64_t c, T log_h) const { return states[c] = element(c).advance(log_h); }
    T begin(int64_t c) const { return states[c] = log_b[c]; }
  };
  Rows<const T> log_a, log_b;
  Rows<T> states;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {log_a.at(batch, time, channel), log_b.at(batch, time, channel), states.at(batch, time, channel)};
  }
  void prefetch(int64_t batch, int64_t time, ChannelTile tile) const {
    prefetch_row(log_a.at(batch, time, tile.begin), tile.width);
    prefetch_row(log_b.at(batch, time, tile.begin), tile.width);
  }
};

// The new term's share of the sum is a gate, z = sigmoid(log_b_t - (log_a_t + log h_{t-1})): delta splits into z delta
// for log_b and (1 - z) delta for log_a and for the state before. A state of -inf has no shares, and sends back 0.
template <class T>
struct LogAdjoint {
  using Summary = GatedRun<T>;
  struct Row {
    const T *log_a, *log_b, *previous, *states, *cotangent;
    T *log_a_gradient, *log_b_gradient;

    GatedAdjoint<T> element(int64_t c) const {
      const T logit = log_b[c] - (log_a[c] + previous[c]);
      const T e = cpu::exp(-std::abs(logit)), minor = e / (1 + e);
      const bool empty = states[c] == -std::numeric_limits<T>::infinity();
      return {{empty ? T(0) : minor, empty ? T(1) : logit}, empty ? T(0) : cotangent[c]};
    }
    T advance(int64_t c, T carry) const {
      const GatedAdjoint<T> split = element(c);
      const T delta = split.input + carry;
      const T kept = split.gate.keep(delta), taken = split.gate.take(delta);
      log_a_gradient[c] = kept;
      log_b_gradient[c] = states[c] == -std::numeric_limits<T>::infinity() ? T(0) : taken;
      return kept;
    }
    T begin(int64_t c) const { return advance(c, 0); }
  };
  Rows<const T> log_a, log_b;
  PreviousRows<T> previous;
  Rows<const T> states, cotangent;
  Rows<T> log_a_gradient, log_b_gradient;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {log_a.at(batch, time, channel),         log_b.at(batch, time, channel),
            previous.at(batch, time, channel),      states.at(batch, time, channel),
            cotangent.at(batch, time, channel),     log_a_gradient.at(batch, time, channel),
            log_b_gradient.at(batch, time, channel)};
  }
};

}  // namespace

// ------------------------------------------------------------------------------------------------------------- doors

void linear_scan(const Tensor& a, const Tensor& b, const Tensor& initial, Tensor& states, Tensor& final,
                 Direction direction) {
  dispatch_real("linear_scan", a.dtype(), [&]<class T>() {
    const LinearStep<T> step{rows_of<T>(a), rows_of<T>(b), rows_of<T>(states)};
    scan_rows<T>(step, {states, direction}, initial, final);
  });
}

void linear_scan_gradient(const Tensor& a, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                          const Tensor& final_cotangent, Tensor& a_gradient, Tensor& b_gradient,
                          Tensor& initial_gradient, Direction direction) {
  dispatch_real("linear_scan", a.dtype(), [&]<class T>() {
    const LinearAdjoint<T> step{rows_of<T>(a), PreviousRows<T>(states, initial, direction, 0),
                                rows_of<T>(states_cotangent), rows_of<T>(a_gradient), rows_of<T>(b_gradient)};
    scan_rows<T>(step, {states, opposite(direction)}, final_cotangent, initial_gradient);
  });
}

void log_scan(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, Tensor& states, Tensor& final,
              Direction direction) {
  dispatch_real("log_scan", log_a.dtype(), [&]<class T>() {
    const LogStep<T> step{rows_of<T>(log_a), rows_of<T>(log_b), rows_of<T>(states)};
    scan_rows<T>(step, {states, direction}, log_initial, final, -std::numeric_limits<T>::infinity());
  });
}

void log_scan_gradient(const Tensor& log_a, const Tensor& log_b, const Tensor& log_initial, const Tensor& states,
                       const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& log_a_gradient,
                       Tensor& log_b_gradient, Tensor& log_initial_gradient, Direction direction) {
  dispatch_real("log_scan", log_a.dtype(), [&]<class T>() {
    const PreviousRows<T> previous(states, log_initial, direction, -std::numeric_limits<T>::infinity());
    const LogAdjoint<T> step{rows_of<T>(log_a),
                             rows_of<T>(log_b),
                             previous,
                             rows_of<T>(states),
                             rows_of<T>(states_cotangent),
                             rows_of<T>(log_a_gradient),
                             rows_of<T>(log_b_gradient)};
    scan_rows<T>(step, {states, opposite(direction)}, final_cotangent, log_initial_gradient);
  });
}

}  // namespace monoid::cpu

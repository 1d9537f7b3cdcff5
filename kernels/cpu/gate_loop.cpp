// GateLoop with a channel a head, and its real relative. The state is read out each step, y_t = q_t Re(h_t), and never
// stored: the forward scan keeps one of a few, and the adjoint makes the others again (kernels/recall.h). Floor
// (elements moved per channel and step): GateLoop 6 forward, 11 backward; simple 4 and 7.

#include "monoid/kernels/gate_loop.h"

#include "monoid/kernels/cpu/gate_math.h"
#include "monoid/kernels/cpu/scan_rows.h"
#include "monoid/kernels/monoid.h"
#include "monoid/kernels/polar_gate.h"

namespace monoid::cpu {
namespace {

// A cell says how rows of its inputs, or of their gradients, lie (Row), and what a step reads (Read): the step itself,
// and the way back from delta, the gradient of the state after it.

template <class T>
struct GateLoopCell {
  using Real = T;
  using State = Complex<T>;
  template <class Part>
  struct Row {
    Part *query, *key, *value, *z;
  };
  struct Read {
    T key, value;
    PolarGate<T> gate;

    Affine<State> step() const { return {gate.value(), State(key * value)}; }
    void put_gradients(const Row<T>& to, int64_t c, State delta, State previous) const {
      to.key[c] = delta.re * value;
      to.value[c] = delta.re * key;
      const State z = gate.pull_back(delta * conjugate(previous));
      to.z[2 * c] = z.re;
      to.z[2 * c + 1] = z.im;
    }
  };
  TransitionRule<T> rule;

  Read read(const Row<const T>& row, int64_t c) const {
    return {row.key[c], row.value[c], rule.template gate<PolarMath>(row.z[2 * c], row.z[2 * c + 1])};
  }
};

template <class T>
struct SimpleCell {
  using Real = T;
  using State = T;
  template <class Part>
  struct Row {
    Part *query, *input, *logit;
  };
  struct Read {
    T input, decay, slope;

    Affine<T> step() const { return {decay, input}; }
    void put_gradients(const Row<T>& to, int64_t c, T delta, T previous) const {
      to.input[c] = delta;
      to.logit[c] = delta * previous * slope;
    }
  };

  Read read(const Row<const T>& row, int64_t c) const {
    const T x = row.logit[c], e = cpu::exp(-std::abs(x)), larger = 1 / (1 + e);
    return {row.input[c], x > 0 ? larger : e * larger, e * larger * larger};
  }
};

template <class T, class Part>
struct GateLoopRows {
  Rows<Part> qkv, z;
  int64_t channels;

  typename GateLoopCell<T>::template Row<Part> at(int64_t batch, int64_t time, int64_t channel) const {
    Part* row = qkv.at(batch, time, channel);
    return {row, row + channels, row + 2 * channels, z.at(batch, time, channel)};
  }
};

template <class T, class Part>
struct SimpleRows {
  Rows<Part> packed;
  int64_t channels;

  typename SimpleCell<T>::template Row<Part> at(int64_t batch, int64_t time, int64_t channel) const {
    Part* row = packed.at(batch, time, channel);
    return {row, row + channels, row + 2 * channels};
  }
};

template <class Cell, class In>
struct ReadOut {
  using T = typename Cell::Real;
  using State = typename Cell::State;
  using Summary = Affine<State>;
  struct Row {
    Cell cell;
    typename Cell::template Row<const T> in;
    T* y;

    Summary element(int64_t c) const { return cell.read(in, c).step(); }
    State advance(int64_t c, State h) const {
      const State after = element(c).advance(h);
      y[c] = in.query[c] * real_part(after);
      return after;
    }
    State begin(int64_t c) const { return advance(c, State(0)); }
  };
  Cell cell;
  In in;
  Rows<T> y;
  Rows<State> states;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {cell, in.at(batch, time, channel), y.at(batch, time, channel)};
  }
  State* kept(int64_t batch, int64_t index, int64_t channel) const {
    return states.base ? states.at(batch, index, channel) : nullptr;
  }
};

template <class Cell, class In, class Out>
struct ReadOutAdjoint {
  using T = typename Cell::Real;
  using State = typename Cell::State;
  using Summary = Affine<State>;
  struct Row {
    Cell cell;
    typename Cell::template Row<const T> in;
    const T* cotangent;
    typename Cell::template Row<T> out;
    const State* previous;

    Summary element(int64_t c) const {
      const State back = conjugate(cell.read(in, c).step().a);
      return {back, back * State(in.query[c] * cotangent[c])};
    }
    State redo(int64_t c, State h) const { return cell.read(in, c).step().advance(h); }
    State advance(int64_t c, State carry) const {
      const auto read = cell.read(in, c);
      const auto step = read.step();
      const State before = load_state(previous + c), delta = carry + State(in.query[c] * cotangent[c]);
      out.query[c] = cotangent[c] * real_part(step.advance(before));
      read.put_gradients(out, c, delta, before);
      return conjugate(step.a) * delta;
    }
    State begin(int64_t c) const { return advance(c, State(0)); }
  };
  Cell cell;
  In in;
  Rows<const T> cotangent;
  Out out;
  Rows<const State> states;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {cell, in.at(batch, time, channel), cotangent.at(batch, time, channel), out.at(batch, time, channel),
            nullptr};
  }
  const State* recalled(int64_t batch, int64_t index, int64_t channel) const {
    return states.at(batch, index, channel);
  }
};

/// Rows of kept states [batch, index, channel] or [batch, index, channel, 2].
template <class State, class T, class Of>
auto kept_rows(Of& kept) {
  using Kept = std::conditional_t<std::is_const_v<Of>, const State, State>;
  if (!kept.defined()) return Rows<Kept>{};
  const int64_t width = kept.size(2);
  return Rows<Kept>{reinterpret_cast<Kept*>(kept.template data<T>()), kept.size(1) * width, width, 1};
}

}  // namespace

void gate_loop_scan(const Tensor& qkv, const Tensor& z, const Tensor& initial, Tensor& y, Tensor& final, Tensor& kept,
                    const GateLoopOptions& options) {
  dispatch_real("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    using In = GateLoopRows<T, const T>;
    const In in{rows_of<T>(qkv), {z.data<T>(), z.strides()[0], z.strides()[1], 2}, y.size(2)};
    const ReadOut<GateLoopCell<T>, In> step{
        {TransitionRule<T>(options)}, in, rows_of<T>(y), kept_rows<Complex<T>, T>(kept)};
    scan_rows<Complex<T>>(step, {y, Direction::forward}, initial, final);
  });
}

void gate_loop_scan_gradient(const Tensor& qkv, const Tensor& z, const Tensor& kept, const Tensor& y_cotangent,
                             const Tensor& final_cotangent, Tensor& qkv_gradient, Tensor& z_gradient,
                             Tensor& initial_gradient, const GateLoopOptions& options) {
  dispatch_real("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    using In = GateLoopRows<T, const T>;
    using Out = GateLoopRows<T, T>;
    const int64_t channels = z.size(2);
    const In in{rows_of<T>(qkv), {z.data<T>(), z.strides()[0], z.strides()[1], 2}, channels};
    const Out out{rows_of<T>(qkv_gradient),
                  {z_gradient.data<T>(), z_gradient.strides()[0], z_gradient.strides()[1], 2},
                  channels};
    const ReadOutAdjoint<GateLoopCell<T>, In, Out> step{
        {TransitionRule<T>(options)}, in, rows_of<T>(y_cotangent), out, kept_rows<Complex<T>, T>(kept)};
    scan_rows<Complex<T>>(step, {qkv.size(0), qkv.size(1), channels, Direction::reverse}, final_cotangent,
                          initial_gradient);
  });
}

void simple_gate_loop_scan(const Tensor& packed, const Tensor& initial, Tensor& y, Tensor& final, Tensor& kept,
                           Direction direction) {
  dispatch_real("simple_gate_loop_scan", packed.dtype(), [&]<class T>() {
    using In = SimpleRows<T, const T>;
    const ReadOut<SimpleCell<T>, In> step{{}, {rows_of<T>(packed), y.size(2)}, rows_of<T>(y), kept_rows<T, T>(kept)};
    scan_rows<T>(step, {y, direction}, initial, final);
  });
}

void simple_gate_loop_scan_gradient(const Tensor& packed, const Tensor& kept, const Tensor& y_cotangent,
                                    const Tensor& final_cotangent, Tensor& packed_gradient, Tensor& initial_gradient,
                                    Direction direction) {
  dispatch_real("simple_gate_loop_scan", packed.dtype(), [&]<class T>() {
    using In = SimpleRows<T, const T>;
    using Out = SimpleRows<T, T>;
    const int64_t channels = packed.size(2) / 3;
    const ReadOutAdjoint<SimpleCell<T>, In, Out> step{{},
                                                      {rows_of<T>(packed), channels},
                                                      rows_of<T>(y_cotangent),
                                                      {rows_of<T>(packed_gradient), channels},
                                                      kept_rows<T, T>(kept)};
    scan_rows<T>(step, {packed.size(0), packed.size(1), channels, opposite(direction)}, final_cotangent,
                 initial_gradient);
  });
}

}  // namespace monoid::cpu

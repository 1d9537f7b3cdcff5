// minGRU and minLSTM scans, h_t = h_{t-1} + z_t (g(x_t) - h_{t-1}), straight from the packed projection. Each element
// costs one exponential a gate input, one for g, and a single division that both share. The gate is held by its minor
// half (kernels/monoid.h). Floor (elements moved per state): 3 forward, 6 backward for minGRU; only the states are
// kept.

#include "monoid/kernels/cpu/scan_rows.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/monoid.h"
#include "monoid/kernels/scan.h"

namespace monoid::cpu {
namespace {

// g(x) = x + 0.5 for x >= 0, sigmoid(x) below: positive and continuous, and NaN where x is.
template <class T>
T exp_of_negative_part(T x) {
  return cpu::exp(x > 0 ? T(0) : x);
}

template <class T>
T slope_of_g(T x, T g) {
  return x >= 0 ? T(1) : g * (1 - g);
}

// The packed rows of each cell: `element` reads one channel, `store_gradient` takes the gradients of z's logit and of
// hidden back to them.
template <class T, class Packed>
struct MinGru {
  static constexpr int64_t kParts = 2;
  Packed *hidden, *gate;

  MinGru(Packed* row, int64_t channels) : hidden(row), gate(row + channels) {}

  GatedStep<T> element(int64_t c) const {
    const T x = hidden[c], k = gate[c];
    const T e = cpu::exp(-std::abs(k)), q = exp_of_negative_part(x);
    const T shared = 1 / ((1 + e) * (1 + q));
    return {{e * (shared * (1 + q)), k}, x >= 0 ? x + T(0.5) : q * (shared * (1 + e))};
  }

  template <class Gradient>
  void store_gradient(const Gradient& gradient, int64_t c, T logit_gradient, T hidden_gradient) const {
    gradient.hidden[c] = hidden_gradient;
    gradient.gate[c] = logit_gradient;
  }
};

// i' = sigmoid(i) / (sigmoid(f) + sigmoid(i)) is a gate, f' = 1 - i' the other half; its logit is
// d = softplus(-f) - softplus(-i). With F = exp(-f) and I = exp(-i), i' = (1 + F) / ((1 + F) + (1 + I)): three
// exponentials, scaled by the largest of 1, F, I, and no logarithm.
template <class T, class Packed>
struct MinLstm {
  static constexpr int64_t kParts = 3;
  Packed *hidden, *forget, *input;

  MinLstm(Packed* row, int64_t channels) : hidden(row), forget(row + channels), input(row + 2 * channels) {}

  // An infinite gate would meet itself as inf - inf; this large a number behaves the same.
  static T bounded(T x) { return x < T(-1e30) ? T(-1e30) : x; }

  GatedStep<T> element(int64_t c) const {
    const T x = hidden[c], f = bounded(forget[c]), i = bounded(input[c]);
    const T larger = f < i ? -f : -i, scale = larger > 0 ? larger : T(0);
    const T one = cpu::exp(-scale), q = exp_of_negative_part(x);
    const T take = one + cpu::exp(-f - scale), keep = one + cpu::exp(-i - scale);
    const T shared = 1 / ((take + keep) * (1 + q));
    return {{(take > keep ? keep : take) * (shared * (1 + q)), take - keep},
            x >= 0 ? x + T(0.5) : q * (shared * (take + keep))};
  }

  template <class Gradient>
  void store_gradient(const Gradient& gradient, int64_t c, T logit_gradient, T hidden_gradient) const {
    gradient.hidden[c] = hidden_gradient;
    gradient.forget[c] = -logit_gradient * sigmoid(-forget[c]);
    gradient.input[c] = logit_gradient * sigmoid(-input[c]);
  }
};

template <class T, template <class, class> class Cell>
struct GatedForward {
  using Summary = GatedRun<T>;
  struct Row {
    Cell<T, const T> cell;
    T* states;

    GatedStep<T> element(int64_t c) const { return cell.element(c); }
    T advance(int64_t c, T h) const { return states[c] = cell.element(c).advance(h); }
    T begin(int64_t c) const { return advance(c, 0); }
  };
  Rows<const T> packed;
  Rows<T> states;
  int64_t channels;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {Cell<T, const T>(packed.at(batch, time, channel), channels), states.at(batch, time, channel)};
  }
  void prefetch(int64_t batch, int64_t time, ChannelTile tile) const {
    for (int64_t part = 0; part < Cell<T, const T>::kParts; ++part)
      prefetch_row(packed.at(batch, time, tile.begin + part * channels), tile.width);
  }
};

// carry_t = (1 - z_t) (dh_t + carry_{t+1}); the logit's gradient is delta (g - h_{t-1}) z (1 - z).
template <class T, template <class, class> class Cell>
struct GatedBackward {
  using Summary = GatedRun<T>;
  struct Row {
    Cell<T, const T> cell;
    const T *previous, *cotangent;
    Cell<T, T> gradient;

    GatedAdjoint<T> element(int64_t c) const { return {cell.element(c).gate, cotangent[c]}; }
    T advance(int64_t c, T carry) const {
      const auto [gate, value] = cell.element(c);
      const T delta = cotangent[c] + carry;
      const T logit_gradient = delta * (value - previous[c]) * (gate.minor * (1 - gate.minor));
      cell.store_gradient(gradient, c, logit_gradient, gate.take(delta) * slope_of_g(cell.hidden[c], value));
      return gate.keep(delta);
    }
    T begin(int64_t c) const { return advance(c, 0); }
  };
  Rows<const T> packed;
  PreviousRows<T> previous;
  Rows<const T> cotangent;
  Rows<T> gradient;
  int64_t channels;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {Cell<T, const T>(packed.at(batch, time, channel), channels), previous.at(batch, time, channel),
            cotangent.at(batch, time, channel), Cell<T, T>(gradient.at(batch, time, channel), channels)};
  }
};

// The states are averages of positive numbers; a negative one means that something else was passed.
template <class T>
void check_not_negative(const char* op, const Tensor& initial) {
  if (!initial.defined()) return;
  const Rows<const T> rows = rows_of<T>(initial);
  const int64_t channels = initial.size(1);
  for (int64_t batch = 0; batch < initial.size(0); ++batch) {
    const T* row = rows.at(batch, 0, 0);
    int64_t negative = 0;
    vectorised([&] {
      int64_t count = 0;
      for (int64_t c = 0; c < channels; ++c) count += row[c] < 0;
      negative = count;
    });
    if (negative == 0) [[likely]]
      continue;
    const T* found = std::find_if(row, row + channels, [](T h) { return h < 0; });
    fail(op, ": the initial state must not be negative, got ", *found, " at [", batch, ", ", found - row,
         "]; pass the final state of an earlier scan, or none");
  }
}

template <template <class, class> class Cell>
void gated_scan(const char* op, const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final) {
  dispatch_real(op, packed.dtype(), [&]<class T>() {
    check_not_negative<T>(op, initial);
    const GatedForward<T, Cell> step{rows_of<T>(packed), rows_of<T>(states), states.size(2)};
    scan_rows<T>(step, {states, Direction::forward}, initial, final);
  });
}

template <template <class, class> class Cell>
void gated_scan_gradient(const char* op, const Tensor& packed, const Tensor& initial, const Tensor& states,
                         const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                         Tensor& initial_gradient) {
  dispatch_real(op, packed.dtype(), [&]<class T>() {
    const GatedBackward<T, Cell> step{rows_of<T>(packed), PreviousRows<T>(states, initial, Direction::forward, 0),
                                      rows_of<T>(states_cotangent), rows_of<T>(packed_gradient), states.size(2)};
    scan_rows<T>(step, {states, Direction::reverse}, final_cotangent, initial_gradient);
  });
}

}  // namespace

void min_gru_scan(const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final) {
  gated_scan<MinGru>("min_gru_scan", packed, initial, states, final);
}

void min_gru_scan_gradient(const Tensor& packed, const Tensor& initial, const Tensor& states,
                           const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                           Tensor& initial_gradient) {
  gated_scan_gradient<MinGru>("min_gru_scan", packed, initial, states, states_cotangent, final_cotangent,
                              packed_gradient, initial_gradient);
}

void min_lstm_scan(const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final) {
  gated_scan<MinLstm>("min_lstm_scan", packed, initial, states, final);
}

void min_lstm_scan_gradient(const Tensor& packed, const Tensor& initial, const Tensor& states,
                            const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                            Tensor& initial_gradient) {
  gated_scan_gradient<MinLstm>("min_lstm_scan", packed, initial, states, states_cotangent, final_cotangent,
                               packed_gradient, initial_gradient);
}

}  // namespace monoid::cpu

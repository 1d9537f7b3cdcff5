// The linear scan over complex numbers. Its gradients are those of real and imaginary parts, held as one complex
// number: delta_t = dh_t + carry_{t+1}, da_t = delta_t conj(h_{t-1}), db_t = delta_t, carry_t = conj(a_t) delta_t.
// Floor (complex elements moved per element): 3 forward, 5 backward.

#include "monoid/kernels/cpu/scan_rows.h"
#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/monoid.h"

namespace monoid::cpu {
namespace {

/// Rows of pairs of a [batch, time, channel, 2] tensor, as reals: strides may be odd.
template <class T, class Of>
Rows<T> pair_rows(Of& tensor) {
  const Strides& strides = tensor.strides();
  return {tensor.template data<std::remove_const_t<T>>(), strides[0], strides[1], 2};
}

template <class T>
Complex<T> pair_at(const T* row, int64_t channel) {
  return Complex<T>(row[2 * channel], row[2 * channel + 1]);
}
template <class T>
void put_pair(T* row, int64_t channel, Complex<T> x) {
  row[2 * channel] = x.re;
  row[2 * channel + 1] = x.im;
}

template <class T>
struct ComplexStep {
  using Summary = Affine<Complex<T>>;
  struct Row {
    const T *a, *b;
    T* states;

    Summary element(int64_t c) const { return {pair_at(a, c), pair_at(b, c)}; }
    Complex<T> put(int64_t c, Complex<T> h) const {
      put_pair(states, c, h);
      return h;
    }
    Complex<T> advance(int64_t c, Complex<T> h) const { return put(c, element(c).advance(h)); }
    Complex<T> begin(int64_t c) const { return put(c, pair_at(b, c)); }
  };
  Rows<const T> a, b;
  Rows<T> states;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {a.at(batch, time, channel), b.at(batch, time, channel), states.at(batch, time, channel)};
  }
};

template <class T>
struct ComplexAdjoint {
  using Summary = Affine<Complex<T>>;
  struct Row {
    const T *a, *before, *cotangent;
    T *a_gradient, *b_gradient;

    Summary element(int64_t c) const {
      const Complex<T> back = conjugate(pair_at(a, c));
      return {back, back * pair_at(cotangent, c)};
    }
    Complex<T> advance(int64_t c, Complex<T> carry) const {
      const Complex<T> delta = pair_at(cotangent, c) + carry;
      put_pair(a_gradient, c, delta * conjugate(pair_at(before, c)));
      put_pair(b_gradient, c, delta);
      return conjugate(pair_at(a, c)) * delta;
    }
    Complex<T> begin(int64_t c) const { return advance(c, Complex<T>(0)); }
  };
  Rows<const T> a, states, initial, cotangent;
  Rows<T> a_gradient, b_gradient;
  int64_t first, towards_previous;

  Row row(int64_t batch, int64_t time, int64_t channel) const {
    return {a.at(batch, time, channel),
            time == first ? initial.at(batch, 0, channel) : states.at(batch, time + towards_previous, channel),
            cotangent.at(batch, time, channel), a_gradient.at(batch, time, channel),
            b_gradient.at(batch, time, channel)};
  }
};

/// The same of a tensor that may be absent, then zeros; of a state if it has no time axis.
template <class T>
Rows<const T> pair_rows_or_zeros(const Tensor& tensor) {
  static constexpr std::array<T, 2 * kWidestTile> kZeros{};
  if (!tensor.defined()) return {kZeros.data(), 0, 0, 0};
  return {tensor.data<T>(), tensor.strides()[0], tensor.rank() == 4 ? tensor.strides()[1] : 0, 2};
}

/// Extents of a scan of pairs: those of one part.
ScanShape pair_shape(const Tensor& states, Direction direction) {
  return {states.size(0), states.size(1), states.size(2), direction};
}

}  // namespace

void complex_scan(const Tensor& a, const Tensor& b, const Tensor& initial, Tensor& states, Tensor& final,
                  Direction direction) {
  dispatch_real("complex_scan", a.dtype(), [&]<class T>() {
    const ComplexStep<T> step{pair_rows<const T>(a), pair_rows<const T>(b), pair_rows<T>(states)};
    scan_rows<Complex<T>>(step, pair_shape(states, direction), initial, final);
  });
}

void complex_scan_gradient(const Tensor& a, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                           const Tensor& final_cotangent, Tensor& a_gradient, Tensor& b_gradient,
                           Tensor& initial_gradient, Direction direction) {
  dispatch_real("complex_scan", a.dtype(), [&]<class T>() {
    const bool forward = direction == Direction::forward;
    const ComplexAdjoint<T> step{pair_rows<const T>(a),
                                 pair_rows<const T>(states),
                                 pair_rows_or_zeros<T>(initial),
                                 pair_rows_or_zeros<T>(states_cotangent),
                                 pair_rows<T>(a_gradient),
                                 pair_rows<T>(b_gradient),
                                 forward ? 0 : states.size(1) - 1,
                                 forward ? -1 : 1};
    scan_rows<Complex<T>>(step, pair_shape(states, opposite(direction)), final_cotangent, initial_gradient);
  });
}

}  // namespace monoid::cpu

// GateLoop with heads of d channels: S_t = a_t S_{t-1} + k_t v_t^T, a complex d x d matrix, y_t = q_t^T Re(S_t). A head
// walks time with its state in the cache as two planes; heads are shared among threads. The gradient runs a stretch at
// a time, forward for what needs S and back for what needs D, the gradient of S. That of a = exp(lambda) needs both at
// once; but A_t = <D_t, conj(S_t)> obeys
//   dlambda_t = A_t - k_t^T D_t v_t,  A_t = q_t^T conj(S_t) dy_t + dlambda_{t+1},
// so that the products of the two passes are enough, with A itself at the end of each stretch to lose no digits.
// Floor (elements moved per channel and step): 4 forward, 7 backward; about 10 d operations forward, 30 backward.

#include <vector>

#include "monoid/core/memory.h"
#include "monoid/core/parallel.h"
#include "monoid/core/tensor.h"
#include "monoid/kernels/cpu/gate_math.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/gate_loop.h"
#include "monoid/kernels/polar_gate.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kStretch = 64;  // steps between the states that a gradient keeps

/// What all heads share.
struct Layout {
  int64_t batch, time, inner, heads, head_size, plane;

  Layout(const Tensor& qkv, const Tensor& z)
      : batch(qkv.size(0)),
        time(qkv.size(1)),
        inner(qkv.size(2) / 3),
        heads(z.size(2)),
        head_size(inner / heads),
        plane(head_size * head_size) {}
};

/// The tokens of one head.
template <class T>
struct Tokens {
  T *qkv, *z;
  int64_t qkv_step, z_step, inner;

  template <class Of>
  Tokens(Of& packed, Of& angles, const Layout& layout, int64_t batch, int64_t head)
      : qkv(packed.template data<std::remove_const_t<T>>() + batch * packed.strides()[0] + head * layout.head_size),
        z(angles.template data<std::remove_const_t<T>>() + batch * angles.strides()[0] + head * angles.strides()[2]),
        qkv_step(packed.strides()[1]),
        z_step(angles.strides()[1]),
        inner(layout.inner) {}

  T* query(int64_t time) const { return qkv + time * qkv_step; }
  T* key(int64_t time) const { return query(time) + inner; }
  T* value(int64_t time) const { return query(time) + 2 * inner; }
  T* angle(int64_t time) const { return z + time * z_step; }
};

template <class T>
PolarGate<T> gate_at(const TransitionRule<T>& rule, const T* z) {
  return rule.template gate<PolarMath>(z[0], z[1]);
}

/// A d x d complex matrix as two planes.
template <class T>
struct Planes {
  T *re, *im;

  void load(const T* pairs, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) re[i] = pairs ? pairs[2 * i] : T(0), im[i] = pairs ? pairs[2 * i + 1] : T(0);
  }
  void store(T* pairs, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) pairs[2 * i] = re[i], pairs[2 * i + 1] = im[i];
  }
};

/// S = a S + left right^T, a row at a time: visit(i, re, im) sees row i of the result.
template <class T, class Visit>
void update(const Planes<T>& state, Complex<T> a, const T* left, const T* right, int64_t size, Visit visit) {
  for (int64_t i = 0; i < size; ++i) {
    T *re = state.re + i * size, *im = state.im + i * size;
    const T factor = left[i];
#pragma GCC ivdep
    for (int64_t j = 0; j < size; ++j) {
      const T x = re[j], y = im[j];
      re[j] = a.re * x + (factor * right[j] - a.im * y);
      im[j] = a.re * y + a.im * x;
    }
    visit(i, re, im);
  }
}

/// row . x, in eight sums of fixed order.
template <class T>
T dot(const T* row, const T* x, int64_t size) {
  T sums[8] = {};
  int64_t j = 0;
  for (; j + 8 <= size; j += 8)
    for (int64_t lane = 0; lane < 8; ++lane) sums[lane] += row[j + lane] * x[j + lane];
  for (; j < size; ++j) sums[0] += row[j] * x[j];
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <class T>
Complex<T> inner_product(const Planes<T>& x, const Planes<T>& y, int64_t count) {  // sum of x conj(y)
  return Complex<T>(dot(x.re, y.re, count) + dot(x.im, y.im, count), dot(x.im, y.re, count) - dot(x.re, y.im, count));
}

template <class T>
T* pairs_of(const Tensor& states, const Layout& layout, int64_t batch, int64_t head) {
  if (!states.defined()) return nullptr;
  return const_cast<T*>(states.data<T>()) + (batch * layout.heads + head) * layout.plane * 2;
}

template <class T>
void forward_head(const Layout& layout, const TransitionRule<T>& rule, const Tokens<const T>& tokens, const T* initial,
                  T* y, T* final, const Planes<T>& state) {
  const int64_t size = layout.head_size;
  vectorised([&] {
    state.load(initial, layout.plane);
    for (int64_t t = 0; t < layout.time; ++t) {
      T* out = y + t * layout.inner;
      const T* query = tokens.query(t);
      for (int64_t j = 0; j < size; ++j) out[j] = 0;
      update(state, gate_at(rule, tokens.angle(t)).value(), tokens.key(t), tokens.value(t), size,
             [&](int64_t i, const T* re, const T*) {
               const T factor = query[i];
#pragma GCC ivdep
               for (int64_t j = 0; j < size; ++j) out[j] += factor * re[j];
             });
    }
    state.store(final, layout.plane);
  });
}

/// Work space of one head's gradient.
template <class T>
struct HeadBuffers {
  std::vector<T> values;
  Planes<T> state, adjoint;
  T *read_re, *read_im;  // q_t^T conj(S_t) dy_t of a stretch
  T* zeros;

  explicit HeadBuffers(const Layout& layout)
      : values(static_cast<size_t>(4 * layout.plane + 2 * kStretch + layout.head_size)) {
    T* next = values.data();
    for (T** part : {&state.re, &state.im, &adjoint.re, &adjoint.im}) *part = next, next += layout.plane;
    read_re = next, read_im = next + kStretch, zeros = next + 2 * kStretch;
  }
};

/// The states that enter each stretch, as pairs.
template <class T>
void keep_states(const Layout& layout, const TransitionRule<T>& rule, const Tokens<const T>& tokens, const T* initial,
                 const Planes<T>& state, T* kept) {
  vectorised([&] {
    state.load(initial, layout.plane);
    for (int64_t t = 0; t < layout.time; ++t) {
      if (t % kStretch == 0) state.store(kept + t / kStretch * 2 * layout.plane, layout.plane);
      if (t + 1 < layout.time)
        update(state, gate_at(rule, tokens.angle(t)).value(), tokens.key(t), tokens.value(t), layout.head_size,
               [](int64_t, const T*, const T*) {});
    }
  });
}

template <class T>
void backward_head(const Layout& layout, const TransitionRule<T>& rule, const Tokens<const T>& tokens,
                   const T* cotangents, int64_t cotangent_step, const T* final_cotangent, const Tokens<T>& gradients,
                   T* initial_gradient, const T* kept, HeadBuffers<T>& at) {
  const int64_t size = layout.head_size, stretches = (layout.time + kStretch - 1) / kStretch;
  const auto cotangent = [&](int64_t t) { return cotangents ? cotangents + t * cotangent_step : at.zeros; };
  vectorised([&] {
    at.adjoint.load(final_cotangent, layout.plane);
    for (int64_t stretch = stretches - 1; stretch >= 0; --stretch) {
      const int64_t begin = stretch * kStretch, end = std::min(layout.time, begin + kStretch);
      at.state.load(kept + stretch * 2 * layout.plane, layout.plane);
      for (int64_t t = begin; t < end; ++t) {
        const T *query = tokens.query(t), *dy = cotangent(t);
        T* to = gradients.query(t);
        T sum_re = 0, sum_im = 0;
        update(at.state, gate_at(rule, tokens.angle(t)).value(), tokens.key(t), tokens.value(t), size,
               [&](int64_t i, const T* re, const T* im) {
                 to[i] = dot(re, dy, size);
                 sum_re += query[i] * to[i];
                 sum_im -= query[i] * dot(im, dy, size);
               });
        at.read_re[t - begin] = sum_re, at.read_im[t - begin] = sum_im;
      }
      // The adjoint holds conj(a_{t+1}) D_{t+1}: what comes back to S_t from the steps after it.
      Complex<T> later = inner_product(at.adjoint, at.state, layout.plane);
      for (int64_t t = end - 1; t >= begin; --t) {
        const T *key = tokens.key(t), *value = tokens.value(t);
        T *to_key = gradients.key(t), *to_value = gradients.value(t);
        for (int64_t j = 0; j < size; ++j) to_value[j] = 0;
        T sum_re = 0, sum_im = 0;
        update(at.adjoint, Complex<T>(1), tokens.query(t), cotangent(t), size,
               [&](int64_t i, const T* re, const T* im) {
                 to_key[i] = dot(re, value, size);
                 sum_re += key[i] * to_key[i];
                 sum_im += key[i] * dot(im, value, size);
                 const T factor = key[i];
#pragma GCC ivdep
                 for (int64_t j = 0; j < size; ++j) to_value[j] += factor * re[j];
               });
        later = later + Complex<T>(at.read_re[t - begin] - sum_re, at.read_im[t - begin] - sum_im);
        const PolarGate<T> gate = gate_at(rule, tokens.angle(t));
        // da = dlambda / conj(a), and a = size unit.
        const Complex<T> z = gate.pull_back(gate.unit * Complex<T>(later.re / gate.size, later.im / gate.size));
        gradients.angle(t)[0] = z.re, gradients.angle(t)[1] = z.im;
        const Complex<T> back = conjugate(gate.value());
        for (int64_t i = 0; i < layout.plane; ++i) {
          const T x = at.adjoint.re[i], y = at.adjoint.im[i];
          at.adjoint.re[i] = back.re * x - back.im * y;
          at.adjoint.im[i] = back.re * y + back.im * x;
        }
      }
    }
    if (initial_gradient) at.adjoint.store(initial_gradient, layout.plane);
  });
}

}  // namespace

void gate_loop_outer_scan(const Tensor& qkv, const Tensor& z, const Tensor& initial, Tensor& y, Tensor& final,
                          const GateLoopOptions& options) {
  const Layout layout(qkv, z);
  dispatch_real("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    const TransitionRule<T> rule(options);
    parallel_for(layout.batch * layout.heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> planes(static_cast<size_t>(2 * layout.plane));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t batch = task / layout.heads, head = task % layout.heads;
        T* out = y.data<T>() + batch * layout.time * layout.inner + head * layout.head_size;
        forward_head<T>(layout, rule, Tokens<const T>(qkv, z, layout, batch, head),
                        pairs_of<T>(initial, layout, batch, head), out, pairs_of<T>(final, layout, batch, head),
                        {planes.data(), planes.data() + layout.plane});
      }
    });
  });
}

void gate_loop_outer_scan_gradient(const Tensor& qkv, const Tensor& z, const Tensor& initial, const Tensor& y_cotangent,
                                   const Tensor& final_cotangent, Tensor& qkv_gradient, Tensor& z_gradient,
                                   Tensor& initial_gradient, const GateLoopOptions& options) {
  const Layout layout(qkv, z);
  dispatch_real("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    const TransitionRule<T> rule(options);
    parallel_for(layout.batch * layout.heads, 1, [&](int64_t begin, int64_t end) {
      HeadBuffers<T> buffers(layout);
      const int64_t stretches = (layout.time + kStretch - 1) / kStretch;
      Storage kept_storage(static_cast<size_t>(stretches * 2 * layout.plane) * sizeof(T), kCpu);
      T* kept = static_cast<T*>(kept_storage.data());
      for (int64_t task = begin; task < end; ++task) {
        const int64_t batch = task / layout.heads, head = task % layout.heads;
        const Tokens<const T> tokens(qkv, z, layout, batch, head);
        const bool wanted = y_cotangent.defined();
        const int64_t start = wanted ? batch * y_cotangent.strides()[0] + head * layout.head_size : 0;
        keep_states(layout, rule, tokens, static_cast<const T*>(pairs_of<T>(initial, layout, batch, head)),
                    buffers.state, kept);
        backward_head<T>(layout, rule, tokens, wanted ? y_cotangent.data<T>() + start : nullptr,
                         wanted ? y_cotangent.strides()[1] : 0, pairs_of<T>(final_cotangent, layout, batch, head),
                         Tokens<T>(qkv_gradient, z_gradient, layout, batch, head),
                         pairs_of<T>(initial_gradient, layout, batch, head), kept, buffers);
      }
    });
  });
}

}  // namespace monoid::cpu

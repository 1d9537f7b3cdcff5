// Scans of matrix products: H_t = H_{t-1} X_t. The adjoint runs backwards, with a carry C that is what later steps send
// to H_t:  B_t = dH_t + C,  dX_t = transpose(H_{t-1}) B_t,  C = B_t transpose(X_t).
//
// A chain, one head of one batch row, is walked step by step: the states just written are the left factor of the next
// product and still in the L1 cache. Chains go to threads; the heads of a batch row take turns of a few steps, since
// their matrices lie side by side in memory. Where chains are too few, time is cut into stretches: the product of each
// is made first, the state is folded through these in order, and the stretches are replayed from it. Products are 2
// order^3 FLOP for 8 order^2 bytes in f32: memory is the floor up to order 8, the multiply-adds beyond.

#include "monoid/kernels/matrix_scan.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "monoid/core/memory.h"
#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/small_matrix.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kFewChains = 2;           // fewer than this: time is cut, at twice the work
constexpr int64_t kStretch = 256;           // steps of a stretch
constexpr int64_t kAhead = 4;               // steps that memory is asked ahead
constexpr int64_t kTurn = 8;                // steps of a head before it is the next one's turn
constexpr int64_t kTaskProducts = 1 << 20;  // less work than this is not worth a thread

// ---------------------------------------------------------------------------------------------------------- overflow

std::mutex overflow_mutex;
MatrixOverflow earliest_overflow;

void report_overflow(int64_t batch, int64_t head, int64_t time) {
  const std::lock_guard lock(overflow_mutex);
  const auto key = [](const MatrixOverflow& x) { return std::array{x.time, x.batch, x.head}; };
  const MatrixOverflow found{batch, head, time};
  if (earliest_overflow.time < 0 || key(found) < key(earliest_overflow)) earliest_overflow = found;
}

template <class T>
bool is_finite(const T* x, int64_t count) {
  T probe = 0;
  for (int64_t i = 0; i < count; ++i) probe += x[i] * 0;  // NaN from infinities and NaNs
  return probe == 0;
}

// A product of steps can leave the range of its numbers where a row that goes through the steps one by one does not.
template <class T>
bool loses_a_row(const T* state, const T* next, int64_t order) {
  for (int64_t i = 0; i < order; ++i)
    if (is_finite(state + i * order, order) && !is_finite(next + i * order, order)) return true;
  return false;
}

// ------------------------------------------------------------------------------------------------------------ chains

// Matrices of a [batch, time, head, order, order] tensor, or of a state without time.
template <class T>
struct Matrices {
  T* base = nullptr;
  int64_t batch_step = 0, time_step = 0, head_step = 0;

  T* at(int64_t batch, int64_t head, int64_t time = 0) const {
    return base ? base + batch * batch_step + head * head_step + time * time_step : nullptr;
  }
};

template <class T, class Of>
Matrices<T> matrices_of(Of& tensor) {
  if (!tensor.defined()) return {};
  const Strides& strides = tensor.strides();
  T* base = tensor.template data<std::remove_const_t<T>>();
  return tensor.rank() == 5 ? Matrices<T>{base, strides[0], strides[1], strides[2]}
                            : Matrices<T>{base, strides[0], 0, strides[1]};
}

// Asks for a matrix of some steps later: a product is over before memory answers.
template <bool kWrites, class T>
void expect(T* matrix, int64_t size) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < size; i += kLine) __builtin_prefetch(matrix + i, kWrites ? 1 : 0, 3);
}

// Matrices that a task, or a stretch, works in.
template <class T>
class Workspace {
 public:
  Workspace(int64_t count, int64_t size)
      : size_((size + 15) / 16 * 16), storage_(static_cast<size_t>(count * size_) * sizeof(T), kCpu) {}
  T* operator[](int64_t i) const { return static_cast<T*>(storage_.data()) + i * size_; }

 private:
  int64_t size_;
  mutable Storage storage_;
};

// What a chain reads, and X from it: in place, or made in the workspace.
template <class Matrix, class T>
struct Source {
  Matrix matrix;
  Matrices<const T> read;
  MatrixForm form;
  static constexpr int64_t kScratch = 3;

  const T* at(int64_t batch, int64_t head, int64_t time, const Workspace<T>& scratch) const {
    const T* m = read.at(batch, head, time);
    if (form == MatrixForm::plain) return m;
    ldu_factors(matrix, m, scratch[0], scratch[1]);
    matrix.multiply(scratch[0], scratch[1], scratch[2]);
    return scratch[2];
  }
  /// The product of steps [begin, end).
  void product(int64_t batch, int64_t head, int64_t begin, int64_t end, T* result) const {
    const Workspace<T> scratch(kScratch + 1, matrix.size());
    T *from = scratch[kScratch], *to = result;
    if ((end - begin) % 2 == 0) std::swap(from, to);
    matrix.run([&] {
      std::copy_n(at(batch, head, begin, scratch), matrix.size(), to);
      for (int64_t t = begin + 1; t < end; ++t) {
        std::swap(from, to);
        matrix.multiply(from, at(batch, head, t, scratch), to);
      }
    });
  }
};

template <class Matrix, class T>
struct ForwardPass {
  using Number = T;
  Source<Matrix, T> source;
  Matrices<const T> initial;
  Matrices<T> states, final;
  int64_t time;
  static constexpr int64_t kSummary = 1;  // matrices of one
  static constexpr int64_t kScratch = Source<Matrix, T>::kScratch;

  int64_t begin_of(int64_t stretch, int64_t length = kStretch) const { return stretch * length; }
  int64_t end_of(int64_t stretch, int64_t length = kStretch) const { return std::min(time, (stretch + 1) * length); }
  const T* entering(int64_t batch, int64_t head) const { return initial.at(batch, head); }

  /// Steps [begin, end) from `state`, nullptr for the identity; the state that leaves goes to `left`.
  void walk(int64_t batch, int64_t head, int64_t begin, int64_t end, const T* state, T* left,
            const Workspace<T>& scratch) const {
    const Matrix& matrix = source.matrix;
    int64_t broken = -1;
    matrix.run([&] {
      for (int64_t t = begin; t < end; ++t) {
        if (t + kAhead < time) {
          expect<false>(source.read.at(batch, head, t + kAhead), matrix.size());
          expect<true>(states.at(batch, head, t + kAhead), matrix.size());
        }
        const T* x = source.at(batch, head, t, scratch);
        T* next = states.at(batch, head, t);
        if (state) {
          matrix.multiply(state, x, next);
        } else {
          std::copy_n(x, matrix.size(), next);
        }
        state = next;
        const bool looks = (t + 1) % kOverflowStretch == 0 || t + 1 == time;
        if (looks && broken < 0 && !is_finite(state, matrix.size())) broken = t;
      }
    });
    if (broken >= 0) report_overflow(batch, head, broken);
    if (state) {
      if (state != left) std::copy_n(state, matrix.size(), left);
    } else {
      for (int64_t i = 0; i < matrix.size(); ++i) left[i] = i % (matrix.order() + 1) == 0;
    }
  }
  void summarise(int64_t batch, int64_t head, int64_t begin, int64_t end, T* const (&summary)[kSummary]) const {
    source.product(batch, head, begin, end, summary[0]);
  }
  void fold(T* const (&summary)[kSummary], const T* state, T* next) const {
    source.matrix.multiply(state, summary[0], next);
  }
  void leave(int64_t batch, int64_t head, const T* state) const {
    std::copy_n(state, source.matrix.size(), final.at(batch, head));
  }
};

template <class Matrix, class T>
struct BackwardPass {
  using Number = T;
  Source<Matrix, T> source;
  Matrices<const T> initial, states, states_cotangent, final_cotangent;
  Matrices<T> x_gradient, initial_gradient;
  int64_t time;
  static constexpr int64_t kSummary = 2;
  static constexpr int64_t kScratch = Source<Matrix, T>::kScratch + 5;

  int64_t begin_of(int64_t stretch, int64_t length = kStretch) const {
    return std::max<int64_t>(0, time - (stretch + 1) * length);
  }
  int64_t end_of(int64_t stretch, int64_t length = kStretch) const { return time - stretch * length; }
  const T* entering(int64_t batch, int64_t head) const { return final_cotangent.at(batch, head); }

  void walk(int64_t batch, int64_t head, int64_t begin, int64_t end, const T* carry, T* left,
            const Workspace<T>& scratch) const {
    walk_to(x_gradient, batch, head, begin, end, carry, left, scratch);
  }
  void summarise(int64_t batch, int64_t head, int64_t begin, int64_t end, T* const (&summary)[kSummary]) const {
    const Workspace<T> product(1, source.matrix.size());
    source.product(batch, head, begin, end, product[0]);
    source.matrix.transpose(product[0], summary[0]);
    walk_to({}, batch, head, begin, end, nullptr, summary[1], Workspace<T>(kScratch, source.matrix.size()));
  }
  void fold(T* const (&summary)[kSummary], const T* carry, T* next) const {
    source.matrix.multiply(carry, summary[0], next, summary[1]);
  }
  void leave(int64_t batch, int64_t head, const T* carry) const {
    if (initial_gradient.base) std::copy_n(carry, source.matrix.size(), initial_gradient.at(batch, head));
  }

 private:
  // Writes gradients where `gradient` is there; a carry of nullptr is zero.
  void walk_to(const Matrices<T>& gradient, int64_t batch, int64_t head, int64_t begin, int64_t end, const T* carry,
               T* left, const Workspace<T>& scratch) const {
    const Matrix& matrix = source.matrix;
    const int64_t size = matrix.size();
    constexpr int64_t kMade = Source<Matrix, T>::kScratch;
    T *const adjoint = scratch[kMade], *const turned = scratch[kMade + 1], *const x_adjoint = scratch[kMade + 2];
    if (!carry) {
      std::fill_n(left, size, T(0));
    } else if (carry != left) {
      std::copy_n(carry, size, left);
    }
    matrix.run([&] {
      for (int64_t t = end - 1; t >= begin; --t) {
        if (t >= kAhead && gradient.base) {
          expect<false>(source.read.at(batch, head, t - kAhead), size);
          expect<false>(states.at(batch, head, t - kAhead), size);
          if (states_cotangent.base) expect<false>(states_cotangent.at(batch, head, t - kAhead), size);
          expect<true>(gradient.at(batch, head, t - kAhead), size);
        }
        const T* x = source.at(batch, head, t, scratch);
        const T* cotangent = states_cotangent.at(batch, head, t);
#pragma GCC ivdep
        for (int64_t i = 0; i < size; ++i) adjoint[i] = left[i] + (cotangent ? cotangent[i] : T(0));
        if (T* to = gradient.at(batch, head, t)) {
          const T* previous = t > 0 ? states.at(batch, head, t - 1) : initial.at(batch, head);
          T* x_to = source.form == MatrixForm::plain ? to : x_adjoint;
          if (previous) {
            matrix.template multiply<true>(previous, adjoint, x_to);
          } else {
            std::copy_n(adjoint, size, x_to);
          }
          if (source.form == MatrixForm::ldu)
            ldu_gradient(matrix, scratch[0], scratch[1], x_adjoint, to, turned, scratch[kMade + 3], scratch[kMade + 4]);
        }
        matrix.transpose(x, turned);
        matrix.multiply(adjoint, turned, left);
      }
    });
  }
};

// ------------------------------------------------------------------------------------------------------------ engine

/// Runs a pass over all chains, its stretches in the order of the pass.
template <class Pass>
void run_chains(const Pass& pass, const Shape& shape, TimeCut cut) {
  using T = typename Pass::Number;
  const int64_t heads = shape[2], chains = shape[0] * heads, time = shape[1], size = pass.source.matrix.size();
  const int64_t order = pass.source.matrix.order(), work = std::max<int64_t>(1, time * size * order);
  const int64_t stretches = (time + kStretch - 1) / kStretch, last = stretches - 1;
  if (cut == TimeCut::never || chains >= kFewChains || stretches < 2) {
    const int64_t turns = std::max<int64_t>(1, (time + kTurn - 1) / kTurn);
    parallel_for(chains, std::max<int64_t>(1, kTaskProducts / work), [&](int64_t begin, int64_t end) {
      const Workspace<T> left(heads, size), scratch(Pass::kScratch, size);
      for (int64_t next; begin < end; begin = next) {
        const int64_t batch = begin / heads, first = begin % heads;
        next = std::min(end, (batch + 1) * heads);
        const int64_t last_head = first + next - begin;
        for (int64_t turn = 0; turn < turns; ++turn) {
          for (int64_t head = first; head < last_head; ++head) {
            pass.walk(batch, head, pass.begin_of(turn, kTurn), pass.end_of(turn, kTurn),
                      turn == 0 ? pass.entering(batch, head) : left[head], left[head], scratch);
          }
        }
        for (int64_t head = first; head < last_head; ++head) pass.leave(batch, head, left[head]);
      }
    });
    return;
  }
  constexpr int64_t kSummary = Pass::kSummary;
  const Workspace<T> carries(chains * stretches, size), summaries(chains * stretches * kSummary, size);
  const auto carry_at = [&](int64_t chain, int64_t stretch) { return carries[chain * stretches + stretch]; };
  const auto walk = [&](int64_t chain, int64_t stretch, const T* state, T* left) {
    pass.walk(chain / heads, chain % heads, pass.begin_of(stretch), pass.end_of(stretch), state, left,
              Workspace<T>(Pass::kScratch, size));
  };
  const auto with_summary = [&](int64_t chain, int64_t stretch, auto body) {
    T* summary[kSummary];
    for (int64_t i = 0; i < kSummary; ++i) summary[i] = summaries[(chain * stretches + stretch) * kSummary + i];
    body(summary);
  };
  parallel_for(chains * last, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chain = task / last, stretch = task % last;
      if (stretch == 0) {
        walk(chain, 0, pass.entering(chain / heads, chain % heads), carry_at(chain, 1));
      } else {
        with_summary(chain, stretch, [&](auto& summary) {
          pass.summarise(chain / heads, chain % heads, pass.begin_of(stretch), pass.end_of(stretch), summary);
        });
      }
    }
  });
  parallel_for(chains, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chain = begin; chain < end; ++chain) {
      for (int64_t stretch = 1; stretch < last; ++stretch) {
        const T* state = carry_at(chain, stretch);
        T* next = carry_at(chain, stretch + 1);
        with_summary(chain, stretch, [&](auto& summary) { pass.fold(summary, state, next); });
        if (loses_a_row(state, next, order)) walk(chain, stretch, state, next);
      }
    }
  });
  parallel_for(chains * last, 1, [&](int64_t begin, int64_t end) {
    const Workspace<T> left(1, size);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chain = task / last, stretch = task % last + 1;
      walk(chain, stretch, carry_at(chain, stretch), left[0]);
      if (stretch == last) pass.leave(chain / heads, chain % heads, left[0]);
    }
  });
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------- doors

void matrix_scan(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final, MatrixForm form, TimeCut cut) {
  dispatch_real("matrix_scan", x.dtype(), [&]<class T>() {
    with_small_matrix<T>(x.size(4), [&]<class Matrix>(const Matrix& matrix) {
      run_chains(ForwardPass<Matrix, T>{{matrix, matrices_of<const T>(x), form},
                                        matrices_of<const T>(initial),
                                        matrices_of<T>(states),
                                        matrices_of<T>(final),
                                        x.size(1)},
                 x.shape(), cut);
    });
  });
}

void matrix_scan_gradient(const Tensor& x, const Tensor& initial, const Tensor& states, const Tensor& states_cotangent,
                          const Tensor& final_cotangent, Tensor& x_gradient, Tensor& initial_gradient, MatrixForm form,
                          TimeCut cut) {
  dispatch_real("matrix_scan", x.dtype(), [&]<class T>() {
    with_small_matrix<T>(x.size(4), [&]<class Matrix>(const Matrix& matrix) {
      run_chains(BackwardPass<Matrix, T>{{matrix, matrices_of<const T>(x), form},
                                         matrices_of<const T>(initial),
                                         matrices_of<const T>(states),
                                         matrices_of<const T>(states_cotangent),
                                         matrices_of<const T>(final_cotangent),
                                         matrices_of<T>(x_gradient),
                                         matrices_of<T>(initial_gradient),
                                         x.size(1)},
                 x.shape(), cut);
    });
  });
}

void take_matrix_overflow(const Tensor&, MatrixOverflow& found) {
  const std::lock_guard lock(overflow_mutex);
  found = earliest_overflow;
  earliest_overflow = {};
}

}  // namespace monoid::cpu

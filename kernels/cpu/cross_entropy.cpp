// Cross-entropy. Floor: logits read once, their gradient written once while a row is in the cache; probabilities are
// never stored. A row goes by in pieces that fit the nearest cache, with a running (maximum, sum) pair: the sum is
// rescaled when a piece raises the maximum. Losses are formed from differences to the maximum, not from a logsumexp
// that an offset of the logits would have rounded.

#include "monoid/kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/rows.h"
#include "monoid/kernels/cpu/shifted.h"
#include "monoid/kernels/cpu/vector_math.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kPiece = 1 << 12;  // logits

void check_targets(const Tensor& targets, int64_t classes, int64_t ignore_index) {
  const int64_t *first = targets.data<int64_t>(), *last = first + targets.elements();
  const int64_t* bad = std::find_if(
      first, last, [=](int64_t target) { return (target < 0 || target >= classes) && target != ignore_index; });
  if (bad == last) return;
  Shape position = targets.shape();
  int64_t index = bad - first;
  for (int axis = position.rank() - 1; axis >= 0; --axis) {
    const int64_t extent = position[axis];
    position[axis] = index % extent;
    index /= extent;
  }
  fail("cross_entropy: target ", *bad, " at ", position, " is none of ", classes, " classes, 0 to ", classes - 1,
       ", nor ignore_index ", ignore_index);
}

template <class T>
struct MaxAndSum {
  T max, sum;  // sum of exp(x - max)
};

template <class T>
MaxAndSum<T> max_and_sum(const T* x, int64_t length) {
  MaxAndSum<T> row{-std::numeric_limits<T>::infinity(), 0};
  for (int64_t begin = 0; begin < length; begin += kPiece) {
    const T* piece = x + begin;
    const int64_t size = std::min(kPiece, length - begin);
    const T max = std::max(row.max, row_max(piece, size));
    const Shifted<T> below(max);
    const T sum = sum_lanes<T>(size, [=](int64_t i) { return cpu::exp(below(piece[i])); });
    row = {max, row.sum * cpu::exp(below(row.max)) + sum};
  }
  return row;
}

// The share of a row in the total: 1, or for a mean 1 / rows that count.
double share_of(const Tensor& counted) {
  if (!counted.defined()) return 1;
  const int64_t count = *counted.data<int64_t>();
  return count > 0 ? 1 / static_cast<double>(count) : 0;
}

// A row of dlogits from the statistics of the row, for a loss of weight d.
template <class T>
void gradient_of_row(const T* x, int64_t classes, int64_t target, T max, T inverse_sum, double smoothing, double d,
                     T* dx) {
  const T probability = static_cast<T>(inverse_sum * d);
  const T uniform = static_cast<T>(smoothing / static_cast<double>(classes) * d);
  const Shifted<T> below(max);
  for (int64_t i = 0; i < classes; ++i) dx[i] = cpu::exp(below(x[i])) * probability - uniform;
  dx[target] -= static_cast<T>((1 - smoothing) * d);
}

}  // namespace

void cross_entropy_count(const Tensor& targets, int64_t ignore_index, Tensor& counted) {
  const int64_t* target = targets.data<int64_t>();
  *counted.data<int64_t>() = targets.elements() - std::count(target, target + targets.elements(), ignore_index);
}

void cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& counted, int64_t ignore_index,
                   double smoothing, Tensor& losses, Tensor& statistics, Tensor& dlogits) {
  const int64_t classes = row_length(logits);
  check_targets(targets, classes, ignore_index);
  dispatch_real("cross_entropy", logits.dtype(), [&]<class T>() {
    const RowOffsets row_of(logits);
    const T *x_data = logits.data<T>(), hard = static_cast<T>(1 - smoothing);
    const T soft = static_cast<T>(smoothing / static_cast<double>(classes));
    const double share = share_of(counted);
    const int64_t* target = targets.data<int64_t>();
    T* const loss = losses.data<T>();
    T* const statistic = statistics.defined() ? statistics.data<T>() : nullptr;
    T* const dx_data = dlogits.defined() ? dlogits.data<T>() : nullptr;
    for_rows(row_count(logits), classes, [=](int64_t row) {
      const bool counts = target[row] != ignore_index;
      const T* x = x_data + row_of(row);
      MaxAndSum<T> of_row{0, 0};
      loss[row] = 0;
      if (counts) {
        of_row = max_and_sum(x, classes);
        const Shifted<T> below(of_row.max);
        T expected = hard != 0 ? hard * below(x[target[row]]) : T(0);  // 0 * -infinity is no number
        if (soft != 0) expected += soft * sum_lanes<T>(classes, [=](int64_t i) { return below(x[i]); });
        loss[row] = of_row.sum == 0 ? std::numeric_limits<T>::infinity() : std::log(of_row.sum) - expected;
      }
      const auto [max, sum] = of_row;
      const T inverse_sum = sum == 0 ? T(0) : 1 / sum;
      if (statistic) {
        statistic[2 * row] = max;
        statistic[2 * row + 1] = inverse_sum;
      }
      if (!dx_data) return;
      if (inverse_sum != 0)
        gradient_of_row(x, classes, target[row], max, inverse_sum, smoothing, share, dx_data + row * classes);
      else
        std::fill_n(dx_data + row * classes, classes, T(0));
    });
  });
}

void cross_entropy_total(const Tensor& losses, const Tensor& counted, Tensor& total) {
  dispatch_real("cross_entropy", losses.dtype(), [&]<class T>() {
    const T* loss = losses.data<T>();
    vectorised([&] {
      const auto loss_of = [=](int64_t row) { return static_cast<double>(loss[row]); };
      *total.data<T>() = static_cast<T>(sum_lanes<double>(losses.elements(), loss_of) * share_of(counted));
    });
  });
}

void cross_entropy_rescale(const Tensor& dtotal, Tensor& dlogits) {
  dispatch_real("cross_entropy", dlogits.dtype(), [&]<class T>() {
    const T factor = *dtotal.data<T>();
    if (factor == 1) return;
    T* dx = dlogits.data<T>();
    for_rows(dlogits.elements(), 1, [=](int64_t i) { dx[i] *= factor; });
  });
}

void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, const Tensor& statistics,
                            const Tensor& dlosses, int64_t ignore_index, double smoothing, Tensor& dlogits) {
  dispatch_real("cross_entropy", logits.dtype(), [&]<class T>() {
    const RowOffsets row_of(logits);
    const int64_t classes = row_length(logits);
    const T *x_data = logits.data<T>(), *statistic = statistics.data<T>(), *dloss = dlosses.data<T>();
    const int64_t* target = targets.data<int64_t>();
    T* dx_data = dlogits.data<T>();
    for_rows(row_count(logits), classes, [=](int64_t row) {
      const T inverse_sum = statistic[2 * row + 1];
      T* dx = dx_data + row * classes;
      if (target[row] == ignore_index || inverse_sum == 0)
        std::fill_n(dx, classes, T(0));
      else
        gradient_of_row(x_data + row_of(row), classes, target[row], statistic[2 * row], inverse_sum, smoothing,
                        static_cast<double>(dloss[row]), dx);
    });
  });
}

}  // namespace monoid::cpu

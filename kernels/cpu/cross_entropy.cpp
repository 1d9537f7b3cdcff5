// Cross-entropy. Floor: logits read once for the losses, read once and written once for the gradient; probabilities
// are never stored. A row goes by in pieces that fit the nearest cache, with a running (maximum, sum) pair: the sum is
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

}  // namespace

void cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore_index, double smoothing, Tensor& losses,
                   Tensor& statistics) {
  const int64_t classes = row_length(logits);
  check_targets(targets, classes, ignore_index);
  dispatch_real("cross_entropy", logits.dtype(), [&]<class T>() {
    const RowOffsets row_of(logits);
    const T *x_data = logits.data<T>(), hard = static_cast<T>(1 - smoothing);
    const T soft = static_cast<T>(smoothing / static_cast<double>(classes));
    const int64_t* target = targets.data<int64_t>();
    T *loss = losses.data<T>(), *statistic = statistics.data<T>();
    for_rows(row_count(logits), classes, [=](int64_t row) {
      if (target[row] == ignore_index) {
        loss[row] = statistic[2 * row] = statistic[2 * row + 1] = 0;
        return;
      }
      const T* x = x_data + row_of(row);
      const auto [max, sum] = max_and_sum(x, classes);
      const Shifted<T> below(max);
      T expected = hard != 0 ? hard * below(x[target[row]]) : T(0);  // 0 * -infinity is no number
      if (soft != 0) expected += soft * sum_lanes<T>(classes, [=](int64_t i) { return below(x[i]); });
      loss[row] = sum == 0 ? std::numeric_limits<T>::infinity() : std::log(sum) - expected;
      statistic[2 * row] = max;
      statistic[2 * row + 1] = sum == 0 ? T(0) : 1 / sum;
    });
  });
}

void cross_entropy_total(const Tensor& losses, const Tensor& targets, int64_t ignore_index, bool mean, Tensor& total,
                         Tensor& scale) {
  const int64_t* target = targets.data<int64_t>();
  const auto ignored = std::count(target, target + targets.elements(), ignore_index);
  const auto counted = static_cast<double>(targets.elements() - ignored);
  const double factor = !mean ? 1 : counted > 0 ? 1 / counted : 0;
  scale.fill(factor);
  dispatch_real("cross_entropy", losses.dtype(), [&]<class T>() {
    const T* loss = losses.data<T>();
    vectorised([&] {
      const auto loss_of = [=](int64_t row) { return static_cast<double>(loss[row]); };
      *total.data<T>() = static_cast<T>(sum_lanes<double>(losses.elements(), loss_of) * factor);
    });
  });
}

void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, const Tensor& statistics,
                            const Tensor& dlosses, const Tensor& scale, int64_t ignore_index, double smoothing,
                            Tensor& dlogits) {
  dispatch_real("cross_entropy", logits.dtype(), [&]<class T>() {
    const RowOffsets row_of(logits);
    const int64_t classes = row_length(logits), dloss_step = dlosses.strides()[0];
    const double factor = scale.defined() ? scale.item() : 1;
    const T *x_data = logits.data<T>(), *statistic = statistics.data<T>(), *dloss = dlosses.data<T>();
    const int64_t* target = targets.data<int64_t>();
    T* dx_data = dlogits.data<T>();
    for_rows(row_count(logits), classes, [=](int64_t row) {
      const T *x = x_data + row_of(row), inverse_sum = statistic[2 * row + 1];
      T* dx = dx_data + row * classes;
      if (target[row] == ignore_index || inverse_sum == 0) {
        for (int64_t i = 0; i < classes; ++i) dx[i] = 0;
        return;
      }
      const double d = static_cast<double>(dloss[row * dloss_step]) * factor;
      const T probability = static_cast<T>(inverse_sum * d);
      const T uniform = static_cast<T>(smoothing / static_cast<double>(classes) * d);
      const Shifted<T> below(statistic[2 * row]);
      for (int64_t i = 0; i < classes; ++i) dx[i] = cpu::exp(below(x[i])) * probability - uniform;
      dx[target[row]] -= static_cast<T>((1 - smoothing) * d);
    });
  });
}

}  // namespace monoid::cpu

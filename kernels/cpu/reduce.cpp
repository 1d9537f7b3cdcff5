// Reductions: outputs are either rows (the reduced axis is the dense one: a fixed set of lanes runs along it) or
// columns (a kept axis is dense: accumulators for a tile of columns, several rows added at a time). Long axes are cut
// into blocks whose partial results are reduced the same way, so the order of every sum is a fixed tree: the error
// grows with its depth, and neither threads nor vector width change a bit. Floor: one read of x.

#include "monoid/kernels/reduce.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/strided.h"
#include "monoid/kernels/cpu/vector_math.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 15;   // elements a task
constexpr int64_t kRowBlock = 2048;   // elements of a row that one set of lanes takes
constexpr int64_t kShortRow = 128;    // rows below this length run on few lanes
constexpr int64_t kColumnBlock = 64;  // rows that one tile of columns takes
constexpr int64_t kTile = 1024;       // columns whose accumulators stay in the L1 cache

// The maps and combinations of the reductions.
struct Keep {
  template <class T>
  T operator()(T value, T) const {
    return value;
  }
};
struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

// The greater one, and NaN whenever there is one.
struct Greater {
  template <class T>
  T operator()(T a, T b) const {
    const T greater = a > b ? a : b;
    return a != a ? a : greater;
  }
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One reduced axis of x; the kept axes are walked together with the row-major result.
struct AxisView {
  int64_t extent;
  int64_t step;
  StridedRows<2> kept;
  int64_t outputs;

  bool by_columns() const { return step != 1 && kept.row_length() > 1 && kept.row_steps()[0] == 1; }
};

AxisView view_axis(const Tensor& x, int axis) {
  Shape shape = x.shape().without(axis);
  Strides steps = x.strides().without(axis), result_steps = contiguous_strides(shape);
  // A dense kept axis goes last: it becomes the row that columns are cut from.
  for (int i = 0; i + 1 < shape.rank(); ++i) {
    if (steps[i] != 1 || shape[i] == 1) continue;
    for (Shape* extents : {&shape, &steps, &result_steps}) std::swap((*extents)[i], (*extents)[-1]);
    break;
  }
  return {x.size(axis), x.strides()[axis], StridedRows<2>(shape, {steps, result_steps}), shape.elements()};
}

// combine over a row of map(x), from the identity. A short row takes few lanes: folding them would be most of the work.
template <class T, class Map, class Combine>
inline T reduce_row(const T* x, int64_t step, int64_t count, T identity, Map map, Combine combine) {
  if (step != 1)
    return reduce_lanes(
        count, identity, [=](int64_t i) { return map(x[i * step]); }, combine);
  const auto term = [=](int64_t i) { return map(x[i]); };
  return count < kShortRow ? reduce_in_lanes<8>(count, identity, term, combine)
                           : reduce_lanes(count, identity, term, combine);
}

template <class T, class Map, class Combine>
void reduce_rows(const AxisView& view, const T* x, const T* parameters, T* result, T identity, Map map,
                 Combine combine) {
  const int64_t blocks = std::max<int64_t>(1, ceil_div(view.extent, kRowBlock));
  const int64_t block = std::max<int64_t>(1, std::min(view.extent, kRowBlock)), width = view.kept.row_length();
  parallel_for(view.outputs * blocks, std::max<int64_t>(1, kGrain / block), [&](int64_t begin, int64_t end) {
    vectorised([&] {
      int64_t part = begin % blocks, column = begin / blocks % width, row = begin / blocks / width;
      auto offsets = view.kept.row_offsets(row);
      for (int64_t n = begin; n < end; ++n) {
        const int64_t first = part * kRowBlock, output = offsets[1] + column * view.kept.row_steps()[1];
        const T* start = x + offsets[0] + column * view.kept.row_steps()[0] + first * view.step;
        const T parameter = parameters ? parameters[output] : T(0);
        result[part * view.outputs + output] = reduce_row(
            start, view.step, std::min(kRowBlock, view.extent - first), identity,
            [&](T value) { return map(value, parameter); }, combine);
        if (++part < blocks) continue;
        part = 0;
        if (++column < width) continue;
        column = 0;
        offsets = view.kept.row_offsets(++row);
      }
    });
  });
}

template <class T, class Map, class Combine>
void reduce_columns(const AxisView& view, const T* x, const T* parameters, T* result, T identity, Map map,
                    Combine combine) {
  const int64_t blocks = std::max<int64_t>(1, ceil_div(view.extent, kColumnBlock));
  const int64_t width = view.kept.row_length(), tiles = ceil_div(width, kTile), step = view.step;
  const int64_t cost = std::min(width, kTile) * std::min(view.extent + 1, kColumnBlock);
  parallel_for(view.kept.rows() * tiles * blocks, std::max<int64_t>(1, kGrain / cost), [&](int64_t begin, int64_t end) {
    std::array<T, kTile> total, parameter;
    for (int64_t n = begin; n < end; ++n) {
      const int64_t part = n % blocks, column = n / blocks % tiles * kTile, first = part * kColumnBlock;
      const auto [source, target] = view.kept.row_offsets(n / blocks / tiles);
      const int64_t columns = std::min(kTile, width - column), result_step = view.kept.row_steps()[1];
      const int64_t rows = std::min(kColumnBlock, view.extent - first);
      const int64_t output = target + column * result_step;
      const T* start = x + source + column + first * step;
      for (int64_t i = 0; i < columns; ++i) parameter[i] = parameters ? parameters[output + i * result_step] : T(0);
      vectorised([&] {
        std::fill_n(total.begin(), columns, identity);
        int64_t row = 0;
        for (; row + 4 <= rows; row += 4) {
          const T *a = start + row * step, *b = a + step, *c = b + step, *d = c + step;
          for (int64_t i = 0; i < columns; ++i) {
            const T upper = combine(map(a[i], parameter[i]), map(b[i], parameter[i]));
            const T lower = combine(map(c[i], parameter[i]), map(d[i], parameter[i]));
            total[i] = combine(total[i], combine(upper, lower));
          }
        }
        for (; row < rows; ++row) {
          const T* a = start + row * step;
          for (int64_t i = 0; i < columns; ++i) total[i] = combine(total[i], map(a[i], parameter[i]));
        }
      });
      T* out = result + part * view.outputs + output;
      for (int64_t i = 0; i < columns; ++i) out[i * result_step] = total[i];
    }
  });
}

// result[output] = combine over `axis` of map(x, parameters[output]); result and parameters are row-major.
template <class T, class Map, class Combine>
void reduce_axis(const Tensor& x, int axis, const T* parameters, T* result, T identity, Map map, Combine combine) {
  const AxisView view = view_axis(x, axis);
  const int64_t blocks = ceil_div(view.extent, view.by_columns() ? kColumnBlock : kRowBlock);
  Tensor partial;
  if (blocks > 1) partial = Tensor::empty({blocks, view.outputs}, x.dtype());
  T* target = blocks > 1 ? partial.data<T>() : result;
  if (view.by_columns()) {
    reduce_columns(view, x.data<T>(), parameters, target, identity, map, combine);
  } else {
    reduce_rows(view, x.data<T>(), parameters, target, identity, map, combine);
  }
  if (blocks > 1) reduce_axis<T>(partial, 0, nullptr, result, identity, Keep{}, combine);
}

// The first place in a row where sign * x is `best` or x is NaN; there is one.
template <class Index, class T>
inline int64_t first_in_row(const T* x, int64_t step, int64_t count, T sign, T best) {
  constexpr int64_t kStretch = 64;
  int64_t at = 0;
  for (; step == 1 && at + kStretch <= count; at += kStretch) {
    Index hits = 0;
    for (int64_t i = at; i < at + kStretch; ++i) {
      hits += sign * x[i] == best ? 1 : 0;
      hits += x[i] != x[i] ? 1 : 0;
    }
    if (hits > 0) break;
  }
  while (sign * x[at * step] != best && x[at * step] == x[at * step]) ++at;
  return at;
}

// place[output] = the first index along `axis` where sign * x is `best`, or NaN if there is one: then best is NaN too
// and equals nothing.
template <class T>
void find_first(const Tensor& x, int axis, T sign, const T* best, int64_t* place) {
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;  // as wide as T, to vectorise
  const AxisView view = view_axis(x, axis);
  const auto [x_step, y_step] = view.kept.row_steps();
  const int64_t width = view.kept.row_length(), tiles = ceil_div(width, kTile), extent = view.extent;
  const bool by_columns = view.by_columns() && extent <= std::numeric_limits<Index>::max();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, std::min(width, kTile) * extent));
  parallel_for(view.kept.rows() * tiles, grain, [&](int64_t begin, int64_t end) {
    std::array<T, kTile> wanted;
    std::array<Index, kTile> found{};
    for (int64_t n = begin; n < end; ++n) {
      const auto [source, target] = view.kept.row_offsets(n / tiles);
      const int64_t column = n % tiles * kTile, columns = std::min(kTile, width - column);
      const T* start = x.data<T>() + source + column * x_step;
      const int64_t output = target + column * y_step;
      if (!by_columns) {
        vectorised([&] {
          for (int64_t i = 0; i < columns; ++i) {
            place[output + i * y_step] =
                first_in_row<Index>(start + i * x_step, view.step, extent, sign, best[output + i * y_step]);
          }
        });
        continue;
      }
      for (int64_t i = 0; i < columns; ++i) wanted[i] = best[output + i * y_step];
      vectorised([&] {
        for (auto at = static_cast<Index>(extent); at-- > 0;) {
          const T* row = start + at * view.step;
          for (int64_t i = 0; i < columns; ++i) {
            const Index equal = sign * row[i] == wanted[i] ? at : found[i];
            found[i] = row[i] != row[i] ? at : equal;
          }
        }
      });
      for (int64_t i = 0; i < columns; ++i) place[output + i * y_step] = found[i];
    }
  });
}

// x with neighbouring reduced axes that step evenly made one; the kept axes stay.
Tensor merge_reduced_axes(const Tensor& x, const Shape& result, std::vector<int>& reduced) {
  Shape shape;
  Strides strides;
  bool open = false;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (x.size(axis) == 1) continue;
    const bool reduces = result[axis] != x.size(axis);
    if (open && reduces && strides[-1] == x.strides()[axis] * x.size(axis)) {
      shape[-1] *= x.size(axis);
      strides[-1] = x.strides()[axis];
    } else {
      if (reduces) reduced.push_back(shape.rank());
      shape.push_back(x.size(axis));
      strides.push_back(x.strides()[axis]);
    }
    open = reduces;
  }
  return x.as_strided(shape, strides, x.offset());
}

}  // namespace

void sum(const Tensor& x, Tensor& result) {
  std::vector<int> reduced;
  Tensor rest = merge_reduced_axes(x, result.shape(), reduced);
  dispatch_real("sum", x.dtype(), [&]<class T>() {
    // Axes that do not merge go one by one, the innermost first: what is left gets small at once.
    for (; reduced.size() > 1; reduced.pop_back()) {
      Tensor smaller = Tensor::empty(rest.shape().without(reduced.back()), x.dtype());
      reduce_axis<T>(rest, reduced.back(), nullptr, smaller.data<T>(), T(0), Keep{}, Add{});
      rest = smaller;
    }
    if (reduced.empty()) {
      result.copy_from(x);
    } else {
      reduce_axis<T>(rest, reduced.front(), nullptr, result.data<T>(), T(0), Keep{}, Add{});
    }
  });
}

void logsumexp(const Tensor& x, int axis, Tensor& result) {
  dispatch_real("logsumexp", x.dtype(), [&]<class T>() {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    Tensor shifts = Tensor::empty_like(result);
    T *shift = shifts.data<T>(), *y = result.data<T>();
    reduce_axis<T>(x, axis, nullptr, shift, -kInfinity, Keep{}, Greater{});
    // An infinite maximum is not subtracted: exp and log carry it through by themselves.
    for (int64_t i = 0; i < result.elements(); ++i) shift[i] = std::abs(shift[i]) < kInfinity ? shift[i] : T(0);
    reduce_axis<T>(
        x, axis, shift, y, T(0), [](T value, T shifted) { return exp(value - shifted); }, Add{});
    parallel_for(result.elements(), kGrain, [&](int64_t begin, int64_t end) {
      vectorised([&] {
        for (int64_t i = begin; i < end; ++i) y[i] = shift[i] + log(y[i]);
      });
    });
  });
}

void arg_extremum(const Tensor& x, int axis, Extremum which, Tensor& index) {
  dispatch_real(which == Extremum::largest ? "argmax" : "argmin", x.dtype(), [&]<class T>() {
    const T sign = which == Extremum::largest ? 1 : -1;
    Tensor best = Tensor::empty(index.shape(), x.dtype());
    reduce_axis<T>(
        x, axis, nullptr, best.data<T>(), -std::numeric_limits<T>::infinity(),
        [sign](T value, T) { return sign * value; }, Greater{});
    find_first<T>(x, axis, sign, best.data<T>(), index.data<int64_t>());
  });
}

}  // namespace monoid::cpu

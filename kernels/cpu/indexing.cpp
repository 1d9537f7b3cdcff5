// Gather and embedding. Every index is checked before the first read, so the loops have no branch. The gradient of an
// embedding sorts the positions by token (a counting sort), adds the rows of a token in pieces of fixed length, then
// the pieces in order: balanced over threads however skewed the tokens are, and accurate where one token has thousands
// of rows. Floor: one read of dy, one write of the table.

#include "monoid/kernels/indexing.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/strided.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a task
constexpr int64_t kPiece = 64;       // rows of one token that are added up in one go

// Coordinates of an element, from its place in row-major order.
Shape position(const Shape& shape, int64_t element) {
  Shape at = shape;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    at[axis] = element % shape[axis];
    element /= shape[axis];
  }
  return at;
}

// Fails on the first index outside [0, bound).
template <class I>
void check_range(const char* op, const char* word, const Tensor& index, int64_t bound, const std::string& place) {
  const I* values = index.data<I>();
  bool outside = false;
  vectorised([&] {
    for (int64_t i = 0; i < index.elements(); ++i) outside |= values[i] < 0 || values[i] >= bound;
  });
  if (!outside) return;
  const I* bad = std::find_if(values, values + index.elements(), [&](I i) { return i < 0 || i >= bound; });
  fail(op, ": ", word, " ", *bad, " at ", position(index.shape(), bad - values), " of ", describe(index),
       " is outside ", place, "; wanted 0 to ", bound - 1);
}

// visit(x element, y element, index element) for all elements of y, where x and y agree on every axis but `axis`.
// Elements that differ on `axis` only are visited by one task, in order.
template <class I, class Visit>
void for_each_indexed(const Tensor& x, const Tensor& y, int axis, const Tensor& index, Visit visit) {
  const StridedRows<3> lines(y.shape().without(axis),
                             {x.strides().without(axis), y.strides().without(axis), index.strides().without(axis)});
  const int64_t count = y.size(axis), length = lines.row_length();
  const int64_t x_along = x.strides()[axis], y_along = y.strides()[axis], index_along = index.strides()[axis];
  const auto [x_step, y_step, index_step] = lines.row_steps();
  const int64_t cut = std::clamp<int64_t>(kGrain / std::max<int64_t>(count, 1), 1, std::max<int64_t>(length, 1));
  const int64_t cuts = (length + cut - 1) / cut;
  const I* places = index.data<I>();
  parallel_for(lines.rows() * cuts, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cut * count)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t task = begin; task < end; ++task) {
                   const auto offsets = lines.row_offsets(task / cuts);
                   const int64_t first = task % cuts * cut, last = std::min(first + cut, length);
                   const auto element = [&](int64_t i, int64_t j) {
                     const int64_t place = offsets[2] + i * index_step + j * index_along;
                     visit(offsets[0] + i * x_step + places[place] * x_along, offsets[1] + i * y_step + j * y_along);
                   };
                   if (index_along < index_step) {
                     for (int64_t i = first; i < last; ++i) {
                       for (int64_t j = 0; j < count; ++j) element(i, j);
                     }
                   } else {
                     for (int64_t j = 0; j < count; ++j) {
                       for (int64_t i = first; i < last; ++i) element(i, j);
                     }
                   }
                 }
               });
}

// total[i] += row_at(0)[i] + row_at(1)[i] + ..., four rows at a time.
template <class T, class RowAt>
void add_rows(T* total, int64_t channels, int64_t count, RowAt row_at) {
  vectorised([&] {
    int64_t row = 0;
    for (; row + 4 <= count; row += 4) {
      const T *a = row_at(row), *b = row_at(row + 1), *c = row_at(row + 2), *d = row_at(row + 3);
      for (int64_t i = 0; i < channels; ++i) total[i] += (a[i] + b[i]) + (c[i] + d[i]);
    }
    for (; row < count; ++row) {
      const T* a = row_at(row);
      for (int64_t i = 0; i < channels; ++i) total[i] += a[i];
    }
  });
}

// Positions ordered by token, and where each token's run begins (one more entry than tokens).
struct Sorted {
  std::vector<int64_t> positions;
  std::vector<int64_t> begin;
};

template <class I>
Sorted sort_by_token(const Tensor& tokens, int64_t rows) {
  const I* token = tokens.data<I>();
  Sorted sorted{std::vector<int64_t>(static_cast<size_t>(tokens.elements())),
                std::vector<int64_t>(static_cast<size_t>(rows) + 1)};
  for (int64_t n = 0; n < tokens.elements(); ++n) ++sorted.begin[static_cast<size_t>(token[n]) + 1];
  for (size_t row = 1; row < sorted.begin.size(); ++row) sorted.begin[row] += sorted.begin[row - 1];
  std::vector<int64_t> next = sorted.begin;
  for (int64_t n = 0; n < tokens.elements(); ++n) {
    sorted.positions[static_cast<size_t>(next[static_cast<size_t>(token[n])]++)] = n;
  }
  return sorted;
}

}  // namespace

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& result) {
  dispatch_index("gather", index.dtype(), [&]<class I>() {
    check_range<I>("gather", "index", index, x.size(axis), str("axis ", axis, " of ", describe(x)));
    dispatch_any(x.dtype(), [&]<class T>() {
      const T* from = x.data<T>();
      T* to = result.data<T>();
      for_each_indexed<I>(x, result, axis, index, [&](int64_t i, int64_t n) { to[n] = from[i]; });
    });
  });
}

void gather_gradient(const Tensor& dy, int axis, const Tensor& index, Tensor& dx) {
  dispatch_index("gather", index.dtype(), [&]<class I>() {
    dispatch_real("gather", dy.dtype(), [&]<class T>() {
      const T* from = dy.data<T>();
      T* to = dx.data<T>();
      for_each_indexed<I>(dx, dy, axis, index, [&](int64_t i, int64_t n) { to[i] += from[n]; });
    });
  });
}

void embedding(const Tensor& weight, const Tensor& tokens, Tensor& result) {
  const int64_t channels = weight.size(1), weight_step = weight.strides()[0], result_step = result.strides()[0];
  dispatch_index("embedding", tokens.dtype(), [&]<class I>() {
    check_range<I>("embedding", "token", tokens, weight.size(0), str("the table ", describe(weight)));
    const I* token = tokens.data<I>();
    dispatch_any(weight.dtype(), [&]<class T>() {
      const T* from = weight.data<T>();
      T* to = result.data<T>();
      const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(channels, 1));
      parallel_for(tokens.elements(), grain, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          std::copy_n(from + token[n] * weight_step, channels, to + n * result_step);
        }
      });
    });
  });
}

void embedding_gradient(const Tensor& dy, const Tensor& tokens, Tensor& dweight) {
  const int64_t rows = dweight.size(0), channels = dweight.size(1);
  const int64_t dy_step = dy.strides()[0], row_step = dweight.strides()[0];
  const Sorted sorted =
      dispatch_index("embedding", tokens.dtype(), [&]<class I>() { return sort_by_token<I>(tokens, rows); });
  // A piece is a stretch of sorted positions of one token. The first piece of a row is added to the table itself, the
  // others to rows of `partial`.
  struct Piece {
    int64_t row, begin, end, partial;
  };
  std::vector<Piece> pieces;
  std::vector<std::pair<int64_t, int64_t>> several;  // (row, its first partial) of rows with more than one piece
  int64_t partials = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = sorted.begin[static_cast<size_t>(row)], end = sorted.begin[static_cast<size_t>(row) + 1];
    if (end - begin > kPiece) several.emplace_back(row, partials);
    for (int64_t n = begin; n < end; n += kPiece) {
      pieces.push_back({row, n, std::min(n + kPiece, end), n == begin ? -1 : partials++});
    }
  }
  Tensor partial = Tensor::zeros({partials, channels}, dy.dtype());
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(kPiece * channels, 1));
  dispatch_real("embedding", dy.dtype(), [&]<class T>() {
    const T* gradient = dy.data<T>();
    T *table = dweight.data<T>(), *others = partial.data<T>();
    parallel_for(static_cast<int64_t>(pieces.size()), grain, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        const auto [row, begin, end, other] = pieces[static_cast<size_t>(p)];
        const int64_t* positions = sorted.positions.data() + begin;
        add_rows(other < 0 ? table + row * row_step : others + other * channels, channels, end - begin,
                 [&](int64_t n) { return gradient + positions[n] * dy_step; });
      }
    });
    parallel_for(static_cast<int64_t>(several.size()), grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const auto [row, begin] = several[static_cast<size_t>(r)];
        const int64_t end =
            static_cast<size_t>(r) + 1 < several.size() ? several[static_cast<size_t>(r) + 1].second : partials;
        add_rows(table + row * row_step, channels, end - begin,
                 [&, base = others + begin * channels](int64_t n) { return base + n * channels; });
      }
    });
  });
}

}  // namespace monoid::cpu

// One product, cut into tiles by a grid that depends on the shapes alone; each tile is one single-threaded BLAS call,
// so the bits of the result do not depend on the number of threads. Tiles first set c to beta c + start and then let
// BLAS accumulate: a bias costs nothing, and NaN in a c that is not read cannot leak. Few tiles and a long k (the
// gradient of a weight) are cut along k too, and the partial sums added in order.

#include "monoid/kernels/cpu/gemm.h"

#include <algorithm>
#include <vector>

#include "monoid/core/error.h"
#include "monoid/core/memory.h"
#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/blas.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/thin_gemm.h"

namespace monoid::cpu {
namespace {

int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }

// Whether thin_gemm would take dot products with the columns of b.
template <class T>
bool by_columns(const Matrix<T>& b) {
  return b.row_step == 1 && b.column_step != 1;
}

// Up to kFlatRows, products of at most kFlatWork multiply-adds, which OpenBLAS runs without packing their operands, are
// up to three times faster than long ones; so a tile is narrow, and its k is walked in steps of kFlatDepth.
constexpr int64_t kFlatRows = 32, kFlatWork = 3 << 17, kFlatDepth = 384;

struct Grid {
  int64_t tile_m, tile_n, depth;  // depth: of one product
  int64_t slices, piece;          // piece: tiles a task
  bool thin;
};

// Large tiles waste the least on packing (512: 5%, 256: 12%, 128: 25% of one core's rate), so they shrink only until
// there are a few for every core of a small machine; a long k is sliced first. Never a function of the thread count.
Grid choose_grid(int64_t m, int64_t n, int64_t k, int64_t batch, bool b_by_columns) {
  constexpr int64_t kLargest = 512, kTiles = 8, kFew = 4, kSlice = 1024, kUnroll = 16;
  constexpr int64_t kThinTile = 1 << 16;                   // elements of b a thin tile reads
  constexpr int64_t kTask = 1 << 20, kThinTask = 1 << 18;  // multiply-adds worth a task
  Grid grid{m, n, k, 1, 1, m <= kThinRows};
  const auto tiles = [&] { return batch * ceil_div(m, grid.tile_m) * ceil_div(n, grid.tile_n) * grid.slices; };
  const auto slice = [&] { grid.slices = std::clamp(k / kSlice, int64_t{1}, ceil_div(kTiles, tiles())); };
  const auto shrink = [&](int64_t smallest, int64_t wanted) {
    while (tiles() < wanted && std::max(grid.tile_m, grid.tile_n) > smallest) {
      int64_t& larger = grid.tile_m >= grid.tile_n ? grid.tile_m : grid.tile_n;
      larger = std::max(smallest, larger / 2);
    }
  };
  if (grid.thin) {
    grid.tile_n = std::min(n, std::max<int64_t>(64, b_by_columns ? kThinTile / std::max<int64_t>(k, 1) : kLargest));
    slice();
  } else if (m <= kFlatRows) {
    grid.depth = kFlatDepth;
    grid.tile_n = std::min(n, kFlatWork / (m * std::min(k, kFlatDepth) + 1) / kUnroll * kUnroll);
    slice();
  } else {
    grid.tile_m = std::min(m, kLargest);
    grid.tile_n = std::min(n, kLargest);
    slice();
    shrink(256, kTiles);
    shrink(128, kFew);
    const auto even = [](int64_t extent, int64_t tile) {
      const int64_t size = ceil_div(extent, ceil_div(extent, tile));
      return ceil_div(size, kUnroll) * kUnroll;
    };
    grid.tile_m = even(m, grid.tile_m);
    grid.tile_n = even(n, grid.tile_n);
  }
  const int64_t work = std::min(m, grid.tile_m) * std::min(n, grid.tile_n) * std::max<int64_t>(k / grid.slices, 1);
  grid.piece = ceil_div(grid.thin ? kThinTask : kTask, work);
  return grid;
}

// c = beta addend + start, where they have data; addend is laid out as c and may be c itself.
template <class T>
void begin_tile(T beta, const T* addend, const Matrix<T>& c, const Matrix<const T>& start) {
  const auto each = [&](auto value) {
    for (int64_t i = 0; i < c.rows; ++i) {
      T* row = c.data + i * c.row_step;
      const T* added = addend + (addend ? i * c.row_step : 0);
      if (c.column_step == 1) {
        for (int64_t j = 0; j < c.columns; ++j) row[j] = value(added + j, i, j);
      } else {
        for (int64_t j = 0; j < c.columns; ++j) row[j * c.column_step] = value(added + j * c.column_step, i, j);
      }
    }
  };
  const auto begin = [&](auto initial) {
    vectorised([&] {
      if (!addend) {
        each([&](const T*, int64_t i, int64_t j) { return initial(i, j); });
      } else {
        each([&](const T* added, int64_t i, int64_t j) { return beta * *added + initial(i, j); });
      }
    });
  };
  if (!start.data) {
    begin([](int64_t, int64_t) { return T(0); });
  } else if (start.column_step == 1) {
    begin([&](int64_t i, int64_t j) { return start.data[i * start.row_step + j]; });
  } else {
    begin([&](int64_t i, int64_t j) { return start.data[i * start.row_step + j * start.column_step]; });
  }
}

// c += alpha a b.
template <class T>
void multiply(bool thin, T alpha, const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c) {
  if (thin) return thin_gemm(alpha, a, b, c);
  struct Layout {
    bool transposed;
    int64_t leading;
  };
  const auto layout = [](const Matrix<const T>& x) -> Layout {
    const bool rows_apart = x.columns <= 1 || x.column_step == 1;
    const bool as_is = rows_apart && (x.rows <= 1 || x.row_step >= x.columns);
    const int64_t leading = as_is ? (x.rows <= 1 ? x.columns : x.row_step) : (x.columns <= 1 ? x.rows : x.column_step);
    return {!as_is, std::max<int64_t>(leading, 1)};
  };
  const Layout of_a = layout(a), of_b = layout(b);
  blas_gemm(of_a.transposed, of_b.transposed, c.rows, c.columns, a.columns, alpha, a.data, of_a.leading, b.data,
            of_b.leading, c.data, std::max(c.row_step, c.columns));
}

template <class T>
void run(T alpha, T beta, Product<T> p) {
  if (p.m() == 0 || p.n() == 0 || p.moving.count() == 0) return;
  p.fold();
  // Few rows go to thin_gemm, which takes any c; BLAS wants the columns of c contiguous.
  const bool columns_apart = p.c.columns > 1 && p.c.column_step != 1;
  if (p.m() > kThinRows && (p.n() <= kThinRows || columns_apart)) p.transpose();
  const int64_t batch = p.moving.count(), sums = p.k() == 0 || alpha == T(0) ? 0 : p.summed.count();
  const Grid grid = choose_grid(p.m(), p.n(), p.k() * std::max<int64_t>(sums, 1), batch, by_columns(p.b));
  const int64_t rows = ceil_div(p.m(), grid.tile_m), columns = ceil_div(p.n(), grid.tile_n);
  // Slices cut the sequence of (summed index, k) into ranges of k; with summed axes left over they cut those instead.
  const int64_t slices = std::min(grid.slices, std::max<int64_t>(1, p.summed.empty() ? p.k() : sums));
  const int64_t slice_k = p.summed.empty() ? ceil_div(ceil_div(p.k(), slices), 64) * 64 : p.k();
  const int64_t slice_sums = p.summed.empty() ? sums : ceil_div(sums, slices);
  const int64_t elements = p.m() * p.n();

  const auto tile = [&](int64_t unit, const Matrix<T>& whole, int64_t slice, const T* addend,
                        const Matrix<const T>& start) {
    const int64_t i = unit / columns % rows * grid.tile_m, j = unit % columns * grid.tile_n;
    const int64_t height = std::min(grid.tile_m, p.m() - i), width = std::min(grid.tile_n, p.n() - j);
    const Matrix<T> c = whole.block(i, j, height, width);
    begin_tile(beta, addend ? addend + i * c.row_step + j * c.column_step : addend, c,
               start.data ? start.block(i, j, height, width) : start);
    const BatchOffsets base = p.moving.offsets(unit / columns / rows);
    const int64_t k = p.summed.empty() ? slice * slice_k : 0, depth = std::min(slice_k, p.k() - k);
    const int64_t first = p.summed.empty() ? 0 : slice * slice_sums, last = std::min(sums, first + slice_sums);
    for (int64_t sum = first; sum < last && depth > 0; ++sum) {
      const BatchOffsets at = p.summed.offsets(sum);
      const Matrix<const T> a = p.a.block(i, k, height, depth).shifted(base.a + at.a);
      const Matrix<const T> b = p.b.block(k, j, depth, width).shifted(base.b + at.b);
      for (int64_t l = 0; l < depth; l += grid.depth) {
        const int64_t some = std::min(grid.depth, depth - l);
        multiply(grid.thin, alpha, a.block(0, l, height, some), b.block(l, 0, some, width), c);
      }
    }
  };
  const auto output = [&](int64_t index) { return p.c.shifted(p.moving.offsets(index).c); };
  const auto addend = [&](int64_t index) { return p.addend ? p.addend + p.moving.offsets(index).c : nullptr; };

  if (slices == 1) {
    parallel_for(batch * rows * columns, grid.piece, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t index = unit / columns / rows;
        tile(unit, output(index), 0, addend(index), p.bias);
      }
    });
    return;
  }
  const Storage scratch(static_cast<size_t>(batch * slices * elements) * sizeof(T), kCpu);
  T* partial = static_cast<T*>(scratch.data());
  parallel_for(batch * rows * columns * slices, grid.piece, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t unit = task / slices, slice = task % slices, index = unit / columns / rows;
      const Matrix<T> part{partial + (index * slices + slice) * elements, p.m(), p.n(), p.n(), 1};
      tile(unit, part, slice, nullptr, {});
    }
  });
  parallel_for(batch * p.m(), std::max<int64_t>(1, (1 << 14) / p.n()), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t index = line / p.m(), i = line % p.m();
      const Matrix<T> c = output(index).block(i, 0, 1, p.n());
      begin_tile(beta, p.addend ? addend(index) + i * c.row_step : nullptr, c,
                 p.bias.data ? p.bias.block(i, 0, 1, p.n()) : p.bias);
      for (int64_t slice = 0; slice < slices; ++slice) {
        const T* part = partial + ((index * slices + slice) * p.m() + i) * p.n();
        vectorised([&] {
          for (int64_t j = 0; j < p.n(); ++j) c.data[j * c.column_step] += part[j];
        });
      }
    }
  });
}

}  // namespace

template <class T>
void gemm(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, T beta, const Matrix<T>& c,
          const GemmBatch& batch, const Matrix<const T>& start) {
  check(a.rows == c.rows && b.columns == c.columns && a.columns == b.rows, "gemm: [", a.rows, ", ", a.columns, "] x [",
        b.rows, ", ", b.columns, "] does not make [", c.rows, ", ", c.columns, "]");
  check(has_unit_step(a) && has_unit_step(b) && has_unit_step(c), "gemm: each operand needs a unit step, got (",
        a.row_step, ", ", a.column_step, "), (", b.row_step, ", ", b.column_step, ") and (", c.row_step, ", ",
        c.column_step, "); copy it first");
  Product<T> p{a, b, c, start, beta == T(0) ? nullptr : c.data, {}, {}};
  for (int axis = 0; axis < batch.extents.rank(); ++axis)
    p.add_axis({batch.extents[axis], batch.a[axis], batch.b[axis], batch.c[axis]});
  run(alpha, beta, p);
}

template <class T>
void gemm(Product<T> product) {
  run(T(1), T(1), std::move(product));
}

template void gemm(float, const Matrix<const float>&, const Matrix<const float>&, float, const Matrix<float>&,
                   const GemmBatch&, const Matrix<const float>&);
template void gemm(double, const Matrix<const double>&, const Matrix<const double>&, double, const Matrix<double>&,
                   const GemmBatch&, const Matrix<const double>&);
template void gemm(Product<float>);
template void gemm(Product<double>);

}  // namespace monoid::cpu

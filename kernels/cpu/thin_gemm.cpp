// Products with a handful of rows, as in decoding: memory bound in b, which BLAS would first copy into packed panels.
// Rows of b^T contiguous: a block of dot products, lanes of partial sums in registers. Rows of b contiguous: a block of
// c in registers, every a[i, k] broadcast over it.

#include "monoid/kernels/cpu/thin_gemm.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "monoid/kernels/cpu/lanes.h"

namespace monoid::cpu {
namespace {

// c[i, j] += alpha <a_i, b_j> for a block of rows of a and of b^T.
template <class L, int kRows, int kColumns, class T>
void dot_block(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c) {
  typename L::Vector sums[kRows][kColumns] = {}, x[kRows], y;
  const auto step = [&](int64_t k, auto... count) {
    for (int i = 0; i < kRows; ++i) L::load(x[i], a.data + i * a.row_step + k, count...);
    for (int j = 0; j < kColumns; ++j) {
      L::load(y, b.data + j * b.column_step + k, count...);
      for (int i = 0; i < kRows; ++i) sums[i][j] += x[i] * y;
    }
  };
  int64_t k = 0;
  for (; k + L::kCount <= a.columns; k += L::kCount) step(k);
  if (k < a.columns) step(k, a.columns - k);
  for (int i = 0; i < kRows; ++i) {
    L::sum({sums[i][0], sums[i][1 % kColumns], sums[i][2 % kColumns], sums[i][3 % kColumns]}, y);
    T values[L::kCount];
    std::memcpy(values, &y, sizeof y);
    for (int j = 0; j < kColumns; ++j) c.data[i * c.row_step + j * c.column_step] += alpha * values[j];
  }
}

// The same block by broadcasting a over kVectors vectors of a row of b; `count` lanes of the last one are real.
template <class L, int kRows, int kVectors, class T>
void broadcast_block(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c, int64_t count) {
  typename L::Vector sums[kRows][kVectors] = {}, y;
  const auto accumulate = [&](auto load_last) {
    for (int64_t k = 0; k < a.columns; ++k) {
      const T* row = b.data + k * b.row_step;
      for (int j = 0; j < kVectors; ++j) {
        if (j + 1 < kVectors) {
          L::load(y, row + j * L::kCount);
        } else {
          load_last(row + j * L::kCount);
        }
        for (int i = 0; i < kRows; ++i) sums[i][j] += a.data[i * a.row_step + k] * y;
      }
    }
  };
  if (count == L::kCount) {
    accumulate([&](const T* from) { L::load(y, from); });
  } else {
    accumulate([&](const T* from) { L::load(y, from, count); });
  }
  const int64_t columns = (kVectors - 1) * L::kCount + count;
  for (int i = 0; i < kRows; ++i) {
    T values[kVectors * L::kCount];
    std::memcpy(values, sums[i], sizeof values);
    for (int64_t j = 0; j < columns; ++j) c.data[i * c.row_step + j * c.column_step] += alpha * values[j];
  }
}

// Calls block(rows, first) with constant row counts 4, 2 and 1 until the rows are done.
template <class Block>
void for_row_blocks(int64_t rows, Block block) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) block(std::integral_constant<int, 4>{}, i);
  if (i + 2 <= rows) {
    block(std::integral_constant<int, 2>{}, i);
    i += 2;
  }
  if (i < rows) block(std::integral_constant<int, 1>{}, i);
}

template <class L, class T>
void run(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c) {
  constexpr int64_t kCount = L::kCount;
  constexpr std::integral_constant<int, 4> four;
  constexpr std::integral_constant<int, 1> one;
  const int64_t columns = b.columns;
  int64_t j = 0;
  if ((b.row_step == 1 || b.rows == 1) && (b.column_step != 1 || columns == 1)) {
    const auto strip = [&](auto width) {
      for_row_blocks(a.rows, [&](auto rows, int64_t i) {
        dot_block<L, rows(), width()>(alpha, a.block(i, 0, rows, a.columns), b.block(0, j, b.rows, width),
                                      c.block(i, j, rows, width));
      });
      j += width;
    };
    while (j + 4 <= columns) strip(four);
    while (j < columns) strip(one);
    return;
  }
  // A few rows of b at a time, over their whole width, so that memory is read in long runs.
  constexpr int64_t kDepth = 64;
  for (int64_t k = 0; k < b.rows; k += kDepth) {
    const int64_t depth = std::min(kDepth, b.rows - k);
    j = 0;
    const auto strip = [&](auto vectors, int64_t last_count) {
      const int64_t width = (vectors - 1) * kCount + last_count;
      for_row_blocks(a.rows, [&](auto rows, int64_t i) {
        broadcast_block<L, rows(), vectors()>(alpha, a.block(i, k, rows, depth), b.block(k, j, depth, width),
                                              c.block(i, j, rows, width), last_count);
      });
      j += width;
    };
    while (j + 4 * kCount <= columns) strip(four, kCount);
    while (j < columns) strip(one, std::min<int64_t>(kCount, columns - j));
  }
}

}  // namespace

template <class T>
void thin_gemm(T alpha, const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c) {
  std::vector<T> packed;
  Matrix<const T> rows = a;
  if (a.column_step != 1 && a.columns > 1) {
    packed.resize(static_cast<size_t>(a.rows * a.columns));
    for (int64_t i = 0; i < a.rows; ++i) {
      for (int64_t k = 0; k < a.columns; ++k) {
        packed[static_cast<size_t>(i * a.columns + k)] = a.data[i * a.row_step + k * a.column_step];
      }
    }
    rows = {packed.data(), a.rows, a.columns, a.columns, 1};
  }
  with_lanes<T>([&]<class L>() { run<L>(alpha, rows, b, c); });
}

template void thin_gemm(float, const Matrix<const float>&, const Matrix<const float>&, const Matrix<float>&);
template void thin_gemm(double, const Matrix<const double>&, const Matrix<const double>&, const Matrix<double>&);

}  // namespace monoid::cpu

#pragma once

#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/matrix_scan.h"

// Rows times matrices. A row of a state never meets another one, so a thread keeps a few rows in registers and takes
// them through one matrix after the other; the threads that hold the rows of a state read the same matrix from shared
// memory, which hands a number to all of them at once.

namespace monoid::cuda {

inline constexpr int kWarpLanes = 32;

template <int kNumbers>
__device__ __forceinline__ bool is_finite(const float (&numbers)[kNumbers]) {
  float probe = 0;
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) probe = fmaf(numbers[i], 0, probe);  // NaN from infinities and NaNs
  return probe == 0;
}

template <int kRows, int kOrder>
struct MatrixRows {
  float row[kRows][kOrder];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kOrder; ++j) row[r][j] = 0;
  }
  __device__ __forceinline__ bool finite() const {
    bool result = true;
#pragma unroll
    for (int r = 0; r < kRows; ++r) result = result && is_finite(row[r]);
    return result;
  }
};

/// Numbers of a matrix row that one load takes.
template <int kOrder>
inline constexpr int kRowPack = kOrder < 4 ? kOrder : 4;

/// Where a number of a matrix lies in shared memory: the packs of a row change places, so that eight threads with a row
/// each find them in different banks.
template <int kOrder>
__host__ __device__ constexpr int entry_at(int row, int column) {
  const int moved = kOrder < 8 ? 0 : row / (kWarpLanes / kOrder) % (kOrder / 4) * 4;
  return row * kOrder + (column ^ moved);
}

/// Which entries of a matrix count: of a packed LDU matrix, the diagonal belongs to both triangles.
enum class Entries { all, lower, upper };

template <Entries kEntries>
__host__ __device__ constexpr bool counts(int k, int j) {
  return kEntries == Entries::all || (kEntries == Entries::lower ? j <= k : j >= k);
}

/// x M, with M in shared memory.
template <Entries kEntries = Entries::all, int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> multiply(const MatrixRows<kRows, kOrder>& x, const float* m) {
  constexpr int kPack = kRowPack<kOrder>;
  MatrixRows<kRows, kOrder> result;
  result.clear();
#pragma unroll
  for (int k = 0; k < kOrder; ++k) {
#pragma unroll
    for (int first = 0; first < kOrder; first += kPack) {
      if (!counts<kEntries>(k, first) && !counts<kEntries>(k, first + kPack - 1)) continue;
      float entries[kPack];
      load<kPack>(m + entry_at<kOrder>(k, first), entries);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        if (!counts<kEntries>(k, first + j)) continue;
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          result.row[r][first + j] = fmaf(x.row[r][k], entries[j], result.row[r][first + j]);
      }
    }
  }
  return result;
}

/// x transpose(M).
template <int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> multiply_transposed(const MatrixRows<kRows, kOrder>& x,
                                                                         const float* m) {
  constexpr int kPack = kRowPack<kOrder>;
  MatrixRows<kRows, kOrder> result;
  result.clear();
#pragma unroll
  for (int k = 0; k < kOrder; ++k) {
#pragma unroll
    for (int first = 0; first < kOrder; first += kPack) {
      float entries[kPack];
      load<kPack>(m + entry_at<kOrder>(k, first), entries);
#pragma unroll
      for (int j = 0; j < kPack; ++j)
#pragma unroll
        for (int r = 0; r < kRows; ++r) result.row[r][k] = fmaf(x.row[r][first + j], entries[j], result.row[r][k]);
    }
  }
  return result;
}

/// x transpose(lower upper) of a packed LDU matrix, both factors in one pass: w = x transpose(upper) is needed only up
/// to where w transpose(lower) has come.
template <int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> multiply_transposed_ldu(const MatrixRows<kRows, kOrder>& x,
                                                                             const float* m) {
  constexpr int kPack = kRowPack<kOrder>;
  MatrixRows<kRows, kOrder> middle, result;
  middle.clear();
  result.clear();
#pragma unroll
  for (int k = 0; k < kOrder; ++k) {
    float entries[kOrder];
#pragma unroll
    for (int first = 0; first < kOrder; first += kPack)
      load<kPack>(m + entry_at<kOrder>(k, first), reinterpret_cast<float(&)[kPack]>(entries[first]));
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int j = k; j < kOrder; ++j) middle.row[r][k] = fmaf(x.row[r][j], entries[j], middle.row[r][k]);
#pragma unroll
      for (int j = 0; j <= k; ++j) result.row[r][k] = fmaf(middle.row[r][j], entries[j], result.row[r][k]);
    }
  }
  return result;
}

/// One step of a state and of its adjoint through the matrix of either form. An LDU matrix is packed: the strict
/// triangles of M with d on the diagonal; its product is never formed.
template <MatrixForm kForm, int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> advance(const MatrixRows<kRows, kOrder>& x, const float* m) {
  if constexpr (kForm == MatrixForm::plain) {
    return multiply(x, m);
  } else {
    return multiply<Entries::upper>(multiply<Entries::lower>(x, m), m);
  }
}
template <MatrixForm kForm, int kRows, int kOrder>
__device__ __forceinline__ MatrixRows<kRows, kOrder> retreat(const MatrixRows<kRows, kOrder>& x, const float* m) {
  if constexpr (kForm == MatrixForm::plain) {
    return multiply_transposed(x, m);
  } else {
    return multiply_transposed_ldu(x, m);
  }
}

// Rows of a matrix that a thread of its group owns: lane, lane + kLanes, ...

template <int kRows, int kOrder>
struct RowOwner {
  static constexpr int kLanes = kOrder / kRows;
  int lane;

  __device__ int row(int r) const { return lane + r * kLanes; }

  __device__ __forceinline__ MatrixRows<kRows, kOrder> read(const float* m) const {
    MatrixRows<kRows, kOrder> rows;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int first = 0; first < kOrder; first += kRowPack<kOrder>)
        load<kRowPack<kOrder>>(m + entry_at<kOrder>(row(r), first),
                               reinterpret_cast<float(&)[kRowPack<kOrder>]>(rows.row[r][first]));
    return rows;
  }
  /// The same rows of the transposed matrix.
  __device__ __forceinline__ MatrixRows<kRows, kOrder> read_columns(const float* m) const {
    MatrixRows<kRows, kOrder> rows;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int k = 0; k < kOrder; ++k) rows.row[r][k] = m[entry_at<kOrder>(k, row(r))];
    return rows;
  }
  __device__ __forceinline__ void write(const MatrixRows<kRows, kOrder>& rows, float* m) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int first = 0; first < kOrder; first += kRowPack<kOrder>)
        store(m + entry_at<kOrder>(row(r), first),
              reinterpret_cast<const float(&)[kRowPack<kOrder>]>(rows.row[r][first]));
  }
  __device__ __forceinline__ MatrixRows<kRows, kOrder> identity() const {
    MatrixRows<kRows, kOrder> rows;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kOrder; ++j) rows.row[r][j] = row(r) == j ? 1 : 0;
    return rows;
  }
};

}  // namespace monoid::cuda

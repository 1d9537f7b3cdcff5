#pragma once

// A product of two matrices of 64 rows and 64 columns out, in f32, by a block of 256 threads. The operands are
// functions of their indices, so that weights are put on where they are read.

namespace monoid::cuda {

inline constexpr int kTile = 64, kTileThreads = 256, kTileDepth = 16;

struct TileOperands {
  float left[kTileDepth][kTile + 4], right[kTileDepth][kTile + 4];  // rows 16 bytes apart: few bank conflicts
};

struct TileProduct {
  static constexpr int kEach = 4;  // rows and columns of a thread
  float sum[kEach][kEach] = {};

  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / 16 * kEach; }
  __device__ static int first_column() { return static_cast<int>(threadIdx.x) % 16 * kEach; }

  /// sum += left(row, k) right(k, column) over k < depth. `kDeep`: right lies along k in memory, not along columns.
  template <bool kDeep, class Left, class Right>
  __device__ void add(TileOperands& operands, int depth, Left left, Right right) {
    const int thread = static_cast<int>(threadIdx.x), row = first_row(), column = first_column();
    for (int start = 0; start < depth; start += kTileDepth) {
#pragma unroll
      for (int i = 0; i < kTileDepth * kTile / kTileThreads; ++i) {
        const int at = thread + i * kTileThreads, deep = at % kTileDepth, wide = at / kTileDepth;
        operands.left[deep][wide] = start + deep < depth ? left(wide, start + deep) : 0;
        const int k = kDeep ? deep : at / kTile, c = kDeep ? wide : at % kTile;
        operands.right[k][c] = start + k < depth ? right(start + k, c) : 0;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kTileDepth; ++k) {
        float x[kEach], y[kEach];
#pragma unroll
        for (int i = 0; i < kEach; ++i) x[i] = operands.left[k][row + i], y[i] = operands.right[k][column + i];
#pragma unroll
        for (int i = 0; i < kEach; ++i)
#pragma unroll
          for (int j = 0; j < kEach; ++j) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
      }
      __syncthreads();
    }
  }

  template <class Visit>
  __device__ void visit(Visit visit_one) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j) visit_one(first_row() + i, first_column() + j, sum[i][j]);
  }

  /// Adds factor(row, column) * sum along each row to totals[row], the same way every time.
  template <class Factor>
  __device__ void add_row_sums(float* totals, Factor factor) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      float total = 0;
#pragma unroll
      for (int j = 0; j < kEach; ++j) total = fmaf(factor(first_row() + i, first_column() + j), sum[i][j], total);
#pragma unroll
      for (int apart = 8; apart > 0; apart /= 2) total += __shfl_down_sync(0xffffffff, total, apart, 16);
      if (first_column() == 0) totals[first_row() + i] += total;
    }
  }
};

}  // namespace monoid::cuda

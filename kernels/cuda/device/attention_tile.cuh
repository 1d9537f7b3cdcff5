#pragma once

#include "monoid/kernels/cuda/device/attention.cuh"
#include "monoid/kernels/cuda/device/tensor_core.cuh"

// Tiles of heads in shared memory and the two products that attention is made of. A warp owns sixteen rows; its lanes
// hold kHeld rows of it each, and of these every column(j). The same kernels run on tensor cores (bf16) and on the
// ordinary units (f32, exact), because only this file knows which lane holds what.

namespace monoid::cuda {

inline constexpr int kWarpRows = 16;

/// bf16 [rows, channels] as tensor cores read it: blocks of 64 channels, whose eight packs of sixteen bytes are
/// permuted by the row, so that eight rows of one column of packs lie in different banks.
template <class T, int kRows_, int kHead>
struct HeadTile {
  static constexpr int kRows = kRows_, kChannels = kHead;
  static constexpr int kBlockBytes = kRows * 128;
  static constexpr int kBytes = (kHead + 63) / 64 * kBlockBytes;
  static_assert(kRows % 8 == 0);

  __device__ __forceinline__ char* at(int row, int channel) const {
    return memory + channel / 64 * kBlockBytes + row * 128 + (((channel / 8) ^ row) & 7) * 16;
  }
  char* memory;
};

/// f32 [rows, channels]; rows are four banks apart.
template <int kRows_, int kHead>
struct HeadTile<float, kRows_, kHead> {
  static constexpr int kRows = kRows_, kChannels = kHead;
  static constexpr int kBytes = kRows * (kHead + 4) * 4;

  __device__ __forceinline__ char* at(int row, int channel) const { return memory + (row * (kHead + 4) + channel) * 4; }
  __device__ __forceinline__ float4 four(int row, int channel) const {
    return *reinterpret_cast<const float4*>(at(row, channel));
  }
  char* memory;
};

template <class T>
struct Products;

// --------------------------------------------------------------------------------------------------- tensor cores

template <>
struct Products<bfloat16> {
  static constexpr int kHeld = 2, kSharing = 4;  // rows of a lane; lanes with the same rows
  static constexpr bool kFourKeys = true;        // lanes side by side hold the weights of one draw
  template <int kColumns>
  using Block = float[kHeld][kColumns / kSharing];

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 32 / 4 + 8 * i; }
  __device__ static int column(int j) { return j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2; }

  /// x += a b^T: rows a_row .. of a, all of b.
  template <class A, class B>
  __device__ static void add_scores(const A& a, int a_row, const B& b, Block<B::kRows>& x) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < A::kChannels; k += 16) {
      uint32_t left[4];
      load_matrices(left, a.at(a_row + lane % 16, k + lane / 16 * 8));
#pragma unroll
      for (int n = 0; n < B::kRows; n += 16) {
        uint32_t right[4];
        load_matrices(right, b.at(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
        multiply_add(at(x, n / 8), left, right[0], right[1]);
        multiply_add(at(x, n / 8 + 1), left, right[2], right[3]);
      }
    }
  }
  /// y += x b.
  template <class B>
  __device__ static void add_mix(const Block<B::kRows>& x, const B& b, Block<B::kChannels>& y, char*) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < B::kRows; k += 16) {
      const int j = k / 4;
      const uint32_t left[4] = {narrow_pair(x[0][j], x[0][j + 1]), narrow_pair(x[1][j], x[1][j + 1]),
                                narrow_pair(x[0][j + 2], x[0][j + 3]), narrow_pair(x[1][j + 2], x[1][j + 3])};
#pragma unroll
      for (int n = 0; n < B::kChannels; n += 16) {
        uint32_t right[4];
        load_transposed(right, b.at(k + lane % 16, n + lane / 16 * 8));
        multiply_add(at(y, n / 8), left, right[0], right[1]);
        multiply_add(at(y, n / 8 + 1), left, right[2], right[3]);
      }
    }
  }
  /// Rows first + row(i) of a head from y; those beyond `end` are not there.
  template <int kColumns>
  __device__ static void store(const Block<kColumns>& y, const float (&scale)[kHeld], const HeadRows<bfloat16>& rows,
                               int first, int end) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 4) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        Raw<bfloat16, 8> pack;
#pragma unroll
        for (int m = 0; m < 4; ++m)
          pack.words[m] = narrow_pair(y[i][2 * (n + m)] * scale[i], y[i][2 * (n + m) + 1] * scale[i]);
        transpose_four<1>(pack.words);
        if (first + row(i) < end) store_pack<8>(rows, first + row(i), (n + lane % 4) * 8, pack);
      }
    }
  }

 private:
  /// The four numbers of a lane in an 8-column tile.
  struct Four {
    float &a, &b, &c, &d;
  };
  template <int N>
  __device__ static Four at(float (&x)[kHeld][N], int tile) {
    return {x[0][2 * tile], x[0][2 * tile + 1], x[1][2 * tile], x[1][2 * tile + 1]};
  }
  __device__ static void multiply_add(Four d, const uint32_t (&left)[4], uint32_t low, uint32_t high) {
    multiply_add_tile(d.a, d.b, d.c, d.d, left, low, high);
  }
};

// ---------------------------------------------------------------------------------------------------------- exact

template <>
struct Products<float> {
  static constexpr int kHeld = 4, kSharing = 8;
  static constexpr bool kFourKeys = false;
  template <int kColumns>
  using Block = float[kHeld][kColumns / kSharing];

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 32 / 8 + 4 * i; }
  __device__ static int column(int j) { return static_cast<int>(threadIdx.x) % 8 + 8 * j; }

  template <class A, class B>
  __device__ static void add_scores(const A& a, int a_row, const B& b, Block<B::kRows>& x) {
#pragma unroll 4
    for (int k = 0; k < A::kChannels; k += 4) {
      float4 left[kHeld];
#pragma unroll
      for (int i = 0; i < kHeld; ++i) left[i] = a.four(a_row + row(i), k);
#pragma unroll
      for (int j = 0; j < B::kRows / kSharing; ++j) {
        const float4 right = b.four(column(j), k);
#pragma unroll
        for (int i = 0; i < kHeld; ++i) {
          x[i][j] = fmaf(left[i].x, right.x, x[i][j]);
          x[i][j] = fmaf(left[i].y, right.y, x[i][j]);
          x[i][j] = fmaf(left[i].z, right.z, x[i][j]);
          x[i][j] = fmaf(left[i].w, right.w, x[i][j]);
        }
      }
    }
  }
  /// Weights pass through shared memory to the lanes that need them. Columns of y come four side by side.
  template <class B>
  __device__ static void add_mix(const Block<B::kRows>& x, const B& b, Block<B::kChannels>& y, char* scratch) {
    constexpr int kStep = B::kRows + 4;
    float* const weights = reinterpret_cast<float*>(scratch);
    const int near = static_cast<int>(threadIdx.x) % 8 * 4;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (int j = 0; j < B::kRows / kSharing; ++j) weights[row(i) * kStep + column(j)] = x[i][j];
    __syncwarp();
#pragma unroll 2
    for (int k = 0; k < B::kRows; k += 4) {
      float left[kHeld][4];
#pragma unroll
      for (int i = 0; i < kHeld; ++i) load<4>(weights + row(i) * kStep + k, left[i]);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < B::kChannels / 32; ++n) {
          const float4 right = b.four(k + m, n * 32 + near);
#pragma unroll
          for (int i = 0; i < kHeld; ++i) {
            y[i][4 * n] = fmaf(left[i][m], right.x, y[i][4 * n]);
            y[i][4 * n + 1] = fmaf(left[i][m], right.y, y[i][4 * n + 1]);
            y[i][4 * n + 2] = fmaf(left[i][m], right.z, y[i][4 * n + 2]);
            y[i][4 * n + 3] = fmaf(left[i][m], right.w, y[i][4 * n + 3]);
          }
        }
      }
    }
  }
  template <int kColumns>
  __device__ static void store(const Block<kColumns>& y, const float (&scale)[kHeld], const HeadRows<float>& rows,
                               int first, int end) {
    const int near = static_cast<int>(threadIdx.x) % 8 * 4;
#pragma unroll
    for (int n = 0; n < kColumns / 32; ++n) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        float four[4];
#pragma unroll
        for (int m = 0; m < 4; ++m) four[m] = y[i][4 * n + m] * scale[i];
        if (first + row(i) < end) store_pack<4>(rows, first + row(i), n * 32 + near, Raw<float, 4>(four));
      }
    }
  }
};

/// Bytes of shared memory in which a warp's weights change lanes.
template <class T, int kColumns>
inline constexpr int kScratchBytes = std::is_same_v<T, float> ? kWarpRows*(kColumns + 4) * 4 : 0;

template <int N>
__device__ __forceinline__ float largest_of_row(float x) {
#pragma unroll
  for (int distance = N / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}
template <int N>
__device__ __forceinline__ float sum_of_row(float x) {
#pragma unroll
  for (int distance = N / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

}  // namespace monoid::cuda

#pragma once

#include "monoid/kernels/cuda/device/attention.cuh"
#include "monoid/kernels/cuda/device/tensor_core.cuh"
#include "monoid/kernels/cuda/device/warpgroup.cuh"

// Tiles of heads in shared memory and the two products that attention is made of. A warp owns sixteen rows; its lanes
// hold kHeld rows of it each, and of these every column(j). The same kernels run on tensor cores (bf16) and on the
// ordinary units (f32, exact), because only this file knows which lane holds what. Products may still run when they
// have been started: what they read and write is left alone until finish().

namespace monoid::cuda {

inline constexpr int kWarpRows = 16;

/// The number of the warp, known to the compiler as the same for all its lanes.
__device__ __forceinline__ int warp_of_block() { return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0); }

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

/// What is computed into these registers is so here, neither before waits above nor after those below.
template <class T, int M, int N>
__device__ __forceinline__ void hold(T (&x)[M][N]) {
#pragma unroll
  for (auto& row : x)
#pragma unroll
    for (T& value : row) {
      if constexpr (std::is_same_v<T, float>)
        asm volatile("" : "+f"(value)::"memory");
      else
        asm volatile("" : "+r"(value)::"memory");
    }
}

template <int M, int N>
__device__ __forceinline__ void clear(float (&x)[M][N]) {
#pragma unroll
  for (auto& row : x)
#pragma unroll
    for (float& value : row) value = 0;
}

// --------------------------------------------------------------------------------------------------- tensor cores

template <>
struct Products<bfloat16> {
  static constexpr int kHeld = 2, kSharing = 4;  // rows of a lane; lanes with the same rows
  static constexpr bool kFourKeys = true;        // lanes side by side hold the weights of one draw
  template <int kColumns>
  using Block = float[kHeld][kColumns / kSharing];

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) % 32 / 4 + 8 * i; }
  __device__ static int column(int j) { return j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2; }

  /// Weights as tensor cores take them: two a register.
  template <int kColumns>
  struct Weights {
    __device__ explicit Weights(const Block<kColumns>& x) {
#pragma unroll
      for (int k = 0; k < kColumns / 16; ++k)
#pragma unroll
        for (int m = 0; m < 4; ++m)
          words[k][m] = narrow_pair(x[m % 2][4 * k + m / 2 * 2], x[m % 2][4 * k + m / 2 * 2 + 1]);
    }
    uint32_t words[kColumns / 16][4];
  };
  /// Four warps together, on GPUs that can: for tiles like B.
  template <class B>
  static constexpr bool kTogether = kHasWarpgroups&& B::kChannels >= 64 && B::kRows >= 64;

  /// Starts x = a b^T: rows a_row .. of a, all of b.
  template <class A, class B>
  __device__ static void start_scores(const A& a, int a_row, const B& b, Block<B::kRows>& x) {
    if constexpr (kTogether<B>) {
      start_scores_together(a, a_row, b, x);
    } else {
      const int lane = static_cast<int>(threadIdx.x) % 32;
      clear(x);
#pragma unroll
      for (int k = 0; k < A::kChannels; k += 16) {
        uint32_t left[4];
        load_matrices(left, a.at(a_row + lane % 16, k + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < B::kRows; n += 16) {
          uint32_t right[4];
          load_matrices(right, b.at(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
          multiply_add(x, n / 8, left, right[0], right[1]);
          multiply_add(x, n / 8 + 1, left, right[2], right[3]);
        }
      }
    }
  }
  /// Starts y += x b.
  template <class B>
  __device__ static void start_mix(Weights<B::kRows>& x, const B& b, Block<B::kChannels>& y, char*) {
    if constexpr (kTogether<B>) {
      start_mix_together(x, b, y);
    } else {
      const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
      for (int k = 0; k < B::kRows; k += 16) {
#pragma unroll
        for (int n = 0; n < B::kChannels; n += 16) {
          uint32_t right[4];
          load_transposed(right, b.at(k + lane % 16, n + lane / 16 * 8));
          multiply_add(y, n / 8, x.words[k / 16], right[0], right[1]);
          multiply_add(y, n / 8 + 1, x.words[k / 16], right[2], right[3]);
        }
      }
    }
  }
  /// Waits until all started products but the last `kPending` are there.
  template <class B, int kPending>
  __device__ static void finish() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (kTogether<B>) wait_for_products<kPending>();
#endif
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
  template <int N>
  __device__ static void multiply_add(float (&x)[kHeld][N], int tile, const uint32_t (&left)[4], uint32_t low,
                                      uint32_t high) {
    multiply_add_tile(x[0][2 * tile], x[0][2 * tile + 1], x[1][2 * tile], x[1][2 * tile + 1], left, low, high);
  }
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  template <class A, class B>
  __device__ static void start_scores_together(const A& a, int a_row, const B& b, Block<B::kRows>& x) {
    const uint64_t left = tile_descriptor(a.memory + a_row / 64 * 64 * 128, A::kBlockBytes);
    const uint64_t right = tile_descriptor(b.memory, B::kBlockBytes);
    products_fence();
#pragma unroll
    for (int k = 0; k < A::kChannels; k += 16) {
      const uint64_t l = left + (k / 64 * A::kBlockBytes + k % 64 * 2) / 16;
      const uint64_t r = right + (k / 64 * B::kBlockBytes + k % 64 * 2) / 16;
      if constexpr (B::kRows == 128)
        group_scores_128<0>(x, l, r, k > 0);
      else
        group_scores_64<0>(x, l, r, k > 0);
    }
    commit_products();
  }
  template <class B>
  __device__ static void start_mix_together(Weights<B::kRows>& x, const B& b, Block<B::kChannels>& y) {
    const uint64_t right = tile_descriptor(b.memory, B::kBlockBytes);
    hold(x.words);
    hold(y);
    products_fence();
#pragma unroll
    for (int k = 0; k < B::kRows; k += 16) {
      const uint64_t r = right + k * 128 / 16;
      if constexpr (B::kChannels == 64) {
        group_mix_64<0>(y, x.words[k / 16], r);
      } else {
        group_mix_128<0>(y, x.words[k / 16], r);
        if constexpr (B::kChannels == 256) group_mix_128<32>(y, x.words[k / 16], r + 2 * B::kBlockBytes / 16);
      }
    }
    commit_products();
  }
#else
  template <class... Operands>
  __device__ static void start_scores_together(Operands&...) {}
  template <class... Operands>
  __device__ static void start_mix_together(Operands&...) {}
#endif
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

  template <int kColumns>
  struct Weights {
    __device__ explicit Weights(const Block<kColumns>& from) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
#pragma unroll
        for (int j = 0; j < kColumns / kSharing; ++j) x[i][j] = from[i][j];
    }
    Block<kColumns> x;
  };

  template <class A, class B>
  __device__ static void start_scores(const A& a, int a_row, const B& b, Block<B::kRows>& x) {
    clear(x);
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
  __device__ static void start_mix(Weights<B::kRows>& weights_of_rows, const B& b, Block<B::kChannels>& y,
                                   char* scratch) {
    const auto& x = weights_of_rows.x;
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
  template <class B, int kPending>
  __device__ static void finish() {}
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

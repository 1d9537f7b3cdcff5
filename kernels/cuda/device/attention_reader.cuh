#pragma once

#include "monoid/kernels/cuda/device/attention.cuh"
#include "monoid/kernels/cuda/device/tensor_core.cuh"

// How warps of a decoding read keys and values: from memory straight into the registers that the products want, sixteen
// bytes a lane.

namespace monoid::cuda {

template <class T>
struct DecodeCall {
  AttentionCall call;
  Heads<const T> q, k, v;
  Heads<T> output;
  float* log_sum_exp;
  int rows, stretch, splits;
  float2* sums;    // [batch, key head, split, row]: greatest score and sum
  float* outputs;  // [batch, key head, split, row, kHead]
};

/// Sixteen bytes, or zeros where there is nothing.
template <class T>
__device__ __forceinline__ uint4 fetch(const T* from, bool exists) {
  return exists ? __ldcs(reinterpret_cast<const uint4*>(from)) : uint4{0, 0, 0, 0};
}

// A warp's share of a stretch, a tile of keys at a time against all rows. A lane holds kHeld rows, of each four scores.
template <class T, int kHead, int kHeld>
struct Reader;

/// Tensor cores: lane (g, t) = (lane / 4, lane % 4) holds row g and, of more than eight, g + 8. As the left side of
/// scores, t has channels 8 t .. of each 32; as the right side of the mix, g has channels 8 g .. of each 64.
template <int kHead, int kHeld>
struct Reader<bfloat16, kHead, kHeld> {
  static constexpr int kKeys = 16, kRows = 8 * kHeld, kChunks = kHead / 32, kBlocks = kHead / 64;

  __device__ Reader(const DecodeCall<bfloat16>& args, int batch, int key_head)
      : keys(args.k.rows(batch, key_head)), values(args.v.rows(batch, key_head)) {
    keys.data += g() * keys.step + 8 * t();
    values.data += 2 * t() * values.step + 8 * g();
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int row = row_of(i);
      const auto rows = args.q.rows(batch, key_head * args.call.group + row % args.call.group);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int channel = 32 * c + 8 * t();
        const uint4 x =
            fetch(rows.data + row / args.call.group * rows.step + channel, row < args.rows && channel < rows.channels);
        q[2 * c][i][0] = x.x, q[2 * c][i][1] = x.y, q[2 * c + 1][i][0] = x.z, q[2 * c + 1][i][1] = x.w;
      }
    }
#pragma unroll
    for (auto& block : mix)
#pragma unroll
      for (auto& tile : block)
#pragma unroll
        for (auto& row : tile) row[0] = row[1] = 0;
  }
  __device__ static int g() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  __device__ static int t() { return static_cast<int>(threadIdx.x) % 4; }
  __device__ static int row_of(int i) { return g() + 8 * i; }
  /// The key of score j.
  __device__ static int key_of(int j) { return j / 2 * 8 + t() * 2 + j % 2; }

  struct Tile {
    uint4 k[2][kChunks], v[4][kBlocks];
  };
  __device__ void fetch_keys(Tile& tile, int key, Stretch there) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const bfloat16* const from = keys.data + (key + 8 * n) * keys.step;
      const bool exists = there.has(key + 8 * n + g());
#pragma unroll
      for (int c = 0; c < kChunks; ++c) tile.k[n][c] = fetch(from + 32 * c, exists && 32 * c + 8 * t() < keys.channels);
    }
  }
  __device__ void fetch_values(Tile& tile, int key, Stretch there) const {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const bfloat16* const from = values.data + (key + n / 2 * 8 + n % 2) * values.step;
      const bool exists = there.has(key + key_of(n));
#pragma unroll
      for (int b = 0; b < kBlocks; ++b)
        tile.v[n][b] = fetch(from + 64 * b, exists && 64 * b + 8 * g() < values.channels);
    }
  }
  __device__ void scores(const Tile& tile, float (&s)[kHeld][4]) const {
#pragma unroll
    for (auto& row : s) row[0] = row[1] = row[2] = row[3] = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int n = 0; n < 2; ++n) multiply_add(s, 2 * n, q[2 * c], tile.k[n][c].x, tile.k[n][c].y);
#pragma unroll
      for (int n = 0; n < 2; ++n) multiply_add(s, 2 * n, q[2 * c + 1], tile.k[n][c].z, tile.k[n][c].w);
    }
  }
  /// Rescales the mix and adds p times the values.
  __device__ void absorb(const Tile& tile, const float (&p)[kHeld][4], const float (&keep)[kHeld]) {
    uint32_t left[kHeld][2];
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      left[i][0] = narrow_pair(p[i][0], p[i][1]), left[i][1] = narrow_pair(p[i][2], p[i][3]);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const auto word = [&](int n, int w) {
        const uint4& x = tile.v[n][b];
        return w == 0 ? x.x : w == 1 ? x.y : w == 2 ? x.z : x.w;
      };
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const uint32_t half = j % 2 ? 0x7632 : 0x5410;
#pragma unroll
        for (int i = 0; i < kHeld; ++i) mix[b][j][i][0] *= keep[i], mix[b][j][i][1] *= keep[i];
        multiply_add(mix[b][j], 0, left, __byte_perm(word(0, j / 2), word(1, j / 2), half),
                     __byte_perm(word(2, j / 2), word(3, j / 2), half));
      }
    }
  }
  __device__ static float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
  }
  __device__ static float row_sum(float x) {
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
  }
  /// Calls visit(i, channel, four values of the mix side by side).
  template <class Visit>
  __device__ void for_each_four(Visit visit) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (int b = 0; b < kBlocks; ++b)
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
          for (int j = 0; j < 8; j += 4)
            visit(i, 64 * b + 8 * (2 * t() + e) + j,
                  float4{mix[b][j][i][e], mix[b][j + 1][i][e], mix[b][j + 2][i][e], mix[b][j + 3][i][e]});
  }

  HeadRows<const bfloat16> keys, values;
  uint32_t q[2 * kChunks][kHeld][2];
  float mix[kBlocks][8][kHeld][2];

 private:
  /// Rows that are not there are zeros, in registers that all products share.
  template <int N>
  __device__ static void multiply_add(float (&x)[kHeld][N], int at, const uint32_t (&left)[kHeld][2], uint32_t low,
                                      uint32_t high) {
    if constexpr (kHeld == 2) {
      multiply_add_tile(x[0][at], x[0][at + 1], x[1][at], x[1][at + 1],
                        {left[0][0], left[1][0], left[0][1], left[1][1]}, low, high);
    } else {
      float none = 0, nothing = 0;
      multiply_add_tile(x[0][at], x[0][at + 1], none, nothing, {left[0][0], 0, left[0][1], 0}, low, high);
    }
  }
};

/// Exact: a lane has four channels of all rows, and of every key or every other one.
template <int kHead, int kHeld>
struct Reader<float, kHead, kHeld> {
  static constexpr int kLanes = kHead / 4, kTogether = 32 / kLanes, kKeys = 4 * kTogether, kRows = kHeld;

  __device__ Reader(const DecodeCall<float>& args, int batch, int key_head)
      : keys(args.k.rows(batch, key_head)), values(args.v.rows(batch, key_head)) {
    keys.data += place() * keys.step + channel();
    values.data += place() * values.step + channel();
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const auto rows = args.q.rows(batch, key_head * args.call.group + i % args.call.group);
      const uint4 x =
          fetch(rows.data + i / args.call.group * rows.step + channel(), i < args.rows && channel() < rows.channels);
      unpack(x, q[i]);
      mix[i][0] = mix[i][1] = mix[i][2] = mix[i][3] = 0;
    }
  }
  __device__ static int place() { return static_cast<int>(threadIdx.x) % 32 / kLanes; }
  __device__ static int channel() { return static_cast<int>(threadIdx.x) % kLanes * 4; }
  __device__ static int row_of(int i) { return i; }
  __device__ static int key_of(int j) { return j * kTogether + place(); }

  struct Tile {
    uint4 k[4], v[4];
  };
  __device__ void fetch_keys(Tile& tile, int key, Stretch there) const { fetch_four(tile.k, keys, key, there); }
  __device__ void fetch_values(Tile& tile, int key, Stretch there) const { fetch_four(tile.v, values, key, there); }
  __device__ void scores(const Tile& tile, float (&s)[kHeld][4]) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float k[4];
      unpack(tile.k[j], k);
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        s[i][j] = fmaf(q[i][0], k[0], fmaf(q[i][1], k[1], fmaf(q[i][2], k[2], q[i][3] * k[3])));
#pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2)
          s[i][j] += __shfl_xor_sync(kAllLanes, s[i][j], distance);
      }
    }
  }
  __device__ void absorb(const Tile& tile, const float (&p)[kHeld][4], const float (&keep)[kHeld]) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (float& x : mix[i]) x *= keep[i];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float v[4];
      unpack(tile.v[j], v);
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
#pragma unroll
        for (int n = 0; n < 4; ++n) mix[i][n] = fmaf(p[i][j], v[n], mix[i][n]);
    }
  }
  __device__ static float row_max(float x) {
    return kTogether == 1 ? x : fmaxf(x, __shfl_xor_sync(kAllLanes, x, kLanes % 32));
  }
  __device__ static float row_sum(float x) {
    return kTogether == 1 ? x : x + __shfl_xor_sync(kAllLanes, x, kLanes % 32);
  }
  template <class Visit>
  __device__ void for_each_four(Visit visit) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const float4 all{row_sum(mix[i][0]), row_sum(mix[i][1]), row_sum(mix[i][2]), row_sum(mix[i][3])};
      if (place() == 0) visit(i, channel(), all);
    }
  }

 private:
  __device__ static void unpack(const uint4& x, float (&to)[4]) {
    to[0] = __uint_as_float(x.x), to[1] = __uint_as_float(x.y);
    to[2] = __uint_as_float(x.z), to[3] = __uint_as_float(x.w);
  }
  __device__ static void fetch_four(uint4 (&to)[4], const HeadRows<const float>& rows, int key, Stretch there) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      to[j] = fetch(rows.data + static_cast<int64_t>(key + j * kTogether) * rows.step,
                    there.has(key + key_of(j)) && channel() < rows.channels);
  }

  HeadRows<const float> keys, values;
  float q[kHeld][4], mix[kHeld][4];
};

}  // namespace monoid::cuda

// y = x w^T for a few rows of x and w [n, k]: decoding, where reading w is all the work. A block owns a tile of columns
// of y and its warps share out k, 128 bytes of each row of w at a time, so that w streams once through registers in
// 16-byte loads while x stays in L1 (more than 16 rows are shared by several blocks). Partial sums meet in shared
// memory and are added in the order of the warps: the bits of a row of y depend on neither the other rows nor, up to 16
// of them, their number.
//
// Between small kernels launching takes as long as computing, so a product can also norm the rows of x, which all
// blocks then do again, and end in GELU.
//
// bf16 runs on the tensor cores, w as their 16 rows and x as their 8 columns. A product does not mind in which order k
// is summed, as long as x and w agree: a lane's 8 neighbours in memory stand in for the k that its fragments ask for.
// f32 runs on the ordinary units. Floor: the bytes of w over the bandwidth of memory (or of L2, if w stays there).

#include <algorithm>

#include "monoid/kernels/cuda/device/math.cuh"
#include "monoid/kernels/cuda/device/norm.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/thin_matmul.h"
#include "monoid/kernels/functions.h"

namespace monoid::cuda {
namespace {

template <class T>
inline constexpr int kTile = sizeof(T) == 2 ? 16 : 8;  // columns of a block
constexpr int kChunk = 64;                             // of k that a warp reads at a time

// Sixteen bytes that are read once: past L1, which x keeps to itself, and with their neighbours into L2.
__device__ __forceinline__ uint4 stream(const void* from) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(from));
  return v;
}

__device__ __forceinline__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// A norm in passing: x times the norm's weight is what is multiplied, the squares of x are summed beside it, and the
// scale that follows from them is left to the end. No one waits for it.

// N numbers of x as they go into the product; adds the squares of x to `squares`.
template <int N, class T>
__device__ __forceinline__ Raw<T, N> weighted(const Raw<T, N>& x, const Raw<T, N>& weight, float& squares) {
  float values[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    squares = fmaf(x[i], x[i], squares);
    values[i] = x[i] * weight[i];
  }
  return Raw<T, N>(values);
}

template <int N, class T>
__device__ __forceinline__ Raw<T, N> norm_weights(const ThinProduct<T>& p, int at) {
  float ones[N];
#pragma unroll
  for (int i = 0; i < N; ++i) ones[i] = 1;
  return p.norm_weight ? load_raw<N>(p.norm_weight + at) : Raw<T, N>(ones);
}

// The scale of a row from the sum of its squares, which is taken again in double where floats cannot hold it.
template <class T>
__device__ __forceinline__ float scale_of(const ThinProduct<T>& p, int64_t row, float squares) {
  if (squares_fit(squares)) return 1 / sqrtf(squares / static_cast<float>(p.k) + static_cast<float>(p.eps));
  double sum = 0;
  for (int64_t i = 0; i < p.k; ++i) {
    const double x = static_cast<double>(widen(p.x[row * p.x_step + i]));
    sum += x * x;
  }
  return static_cast<float>(1 / sqrt(sum / static_cast<double>(p.k) + p.eps));
}

// The sums of one warp over its share of k, into part[row][column of the tile]; behind the columns, of a product that
// norms, the squares of the row.
template <bool kNormed, int kRows, int kStep, int kWarps>
__device__ __forceinline__ void warp_sums(const ThinProduct<bfloat16>& p, int64_t first_row, int64_t first_column,
                                          float* part) {
  constexpr int kTiles = kRows / 8, kUnroll = kChunk / 32, kDepth = 32;  // k of one load of four lanes
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int group = lane / 4, place = lane % 4 * 8, k = static_cast<int>(p.k);
  const int64_t last_row = p.m - 1 - first_row, last_column = p.n - 1;
  // Rows and columns past the end repeat the last one and are not stored.
  const bfloat16* const w0 = p.w + min(first_column + group, last_column) * p.w_step;
  const bfloat16* const w1 = p.w + min(first_column + group + 8, last_column) * p.w_step;
  using Fragment = Raw<bfloat16, 8>;
  const bfloat16* x[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) x[t] = p.x + (first_row + min(int64_t{t * 8 + group}, last_row)) * p.x_step;
  float sums[kTiles][4] = {}, squares[kTiles] = {};
  for (int from = warp * kUnroll * kDepth; from < k; from += kWarps * kUnroll * kDepth) {
    uint4 a[kUnroll], b[kUnroll];
    Fragment c[kUnroll][kTiles], norm[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = from + u * kDepth + place;
      const bool inside = at < k;
      a[u] = inside ? stream(w0 + at) : uint4{};
      b[u] = inside ? stream(w1 + at) : uint4{};
#pragma unroll
      for (int t = 0; t < kTiles; ++t) c[u][t] = inside ? load_raw<8>(x[t] + at) : Fragment{};
      if constexpr (kNormed) norm[u] = inside ? norm_weights<8>(p, at) : Fragment{};
    }
    if constexpr (kNormed) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) c[u][t] = weighted(c[u][t], norm[u], squares[t]);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const auto& words = c[u][t].words;
        multiply(sums[t], a[u].x, b[u].x, a[u].y, b[u].y, words[0], words[1]);
        multiply(sums[t], a[u].z, b[u].z, a[u].w, b[u].w, words[2], words[3]);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) part[(t * 8 + lane % 4 * 2 + i % 2) * kStep + group + i / 2 * 8] = sums[t][i];
    if constexpr (kNormed) {
      const float sum = warp_reduce<4>(squares[t]);
      if (lane % 4 == 0) part[(t * 8 + group) * kStep + kTile<bfloat16>] = sum;
    }
  }
}

template <bool kNormed, int kRows, int kStep, int kWarps>
__device__ __forceinline__ void warp_sums(const ThinProduct<float>& p, int64_t first_row, int64_t first_column,
                                          float* part) {
  constexpr int kColumns = 2, kGroups = 4, kLanes = kWarp / kGroups, kDepth = kLanes * 4;  // columns of a lane
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int group = lane / kLanes, place = lane % kLanes * 4, k = static_cast<int>(p.k);
  const int64_t last_row = p.m - 1 - first_row, last_column = p.n - 1;
  const float* w[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) w[j] = p.w + min(first_column + j * kGroups + group, last_column) * p.w_step;
  float sums[kRows][kColumns] = {}, squares[kRows] = {};
#pragma unroll(kRows < 8 ? 2 : 1)
  for (int at = warp * kDepth + place; at < k; at += kWarps * kDepth) {
    float4 a[kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const uint4 bits = stream(w[j] + at);
      a[j] = *reinterpret_cast<const float4*>(&bits);
    }
    Raw<float, 4> norm;
    if constexpr (kNormed) norm = norm_weights<4>(p, at);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      Raw<float, 4> b = load_raw<4>(p.x + (first_row + min(int64_t{i}, last_row)) * p.x_step + at);
      if constexpr (kNormed) b = weighted(b, norm, squares[i]);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        float sum = sums[i][j];
        sum = fmaf(a[j].x, b[0], sum);
        sum = fmaf(a[j].y, b[1], sum);
        sum = fmaf(a[j].z, b[2], sum);
        sums[i][j] = fmaf(a[j].w, b[3], sum);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const float sum = warp_reduce<kLanes>(sums[i][j]);
      if (place == 0) part[i * kStep + j * kGroups + group] = sum;
    }
    if constexpr (kNormed) {
      const float sum = warp_reduce<kLanes>(squares[i]);
      if (lane == 0) part[i * kStep + kTile<float>] = sum;
    }
  }
}

template <class T, bool kNormed, int kRows, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp) thin_matmul(const __grid_constant__ ThinProduct<T> p) {
  constexpr int kStep = kTile<T> + 4;  // keeps the stores of a warp in different banks
  __shared__ float parts[kWarps][kRows * kStep];
  wait_for_previous();
  // Blocks that read the same columns of w are neighbours.
  const auto tiles = static_cast<unsigned>((p.m + kRows - 1) / kRows);
  const int64_t first_column = int64_t{blockIdx.x / tiles} * kTile<T>, first_row = int64_t{blockIdx.x % tiles} * kRows;
  warp_sums<kNormed, kRows, kStep, kWarps>(p, first_row, first_column, parts[threadIdx.x / kWarp]);
  __syncthreads();
  const auto total = [&](int place) {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += parts[warp][place];
    return sum;
  };
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTile<T>; i += kWarps * kWarp) {
    const int own_row = i / kTile<T>;
    const int64_t row = first_row + own_row, column = first_column + i % kTile<T>;
    if (row >= p.m || column >= p.n) continue;
    float sum = total(own_row * kStep + i % kTile<T>);
    if constexpr (kNormed) sum *= scale_of(p, row, total(own_row * kStep + kTile<T>));
    if (p.bias) sum += widen(p.bias[column]);
    if (p.gelu) sum = functions::Gelu::value(MathFor<T>(), sum, nullptr);
    if (p.addend) sum += widen(p.addend[row * p.y_step + column]);
    p.y[row * p.y_step + column] = narrow<T>(sum);
  }
}

template <class T, bool kNormed, int kRows>
void launch_kind(const Launch& launch, const ThinProduct<T>& p) {
  // More warps a block shorten the walk along k, as long as all blocks still fit on the GPU at once.
  const int64_t blocks = blocks_for(p.n, kTile<T>), chunks = blocks_for(p.k, kChunk), tiles = blocks_for(p.m, kRows);
  const int64_t room = launch.device().multiprocessors * (sizeof(T) == 2 ? 32 : 16);  // by registers
  const auto worth = [&](int64_t warps) { return chunks > warps / 2 && blocks * warps <= room; };
  const auto run = [&](auto kernel, int warps) {
    launch.overlapped(kernel, static_cast<unsigned>(blocks * tiles), warps * kWarp, p);
  };
  if constexpr (sizeof(T) == 2 && kRows <= 16) {  // others have no registers or shared memory for so many
    if (worth(32)) return run(thin_matmul<T, kNormed, kRows, 32>, 32);
  }
  worth(16) ? run(thin_matmul<T, kNormed, kRows, 16>, 16) : run(thin_matmul<T, kNormed, kRows, 8>, 8);
}

template <class T, int kRows>
void launch_rows(const Launch& launch, const ThinProduct<T>& p) {
  p.normed ? launch_kind<T, true, kRows>(launch, p) : launch_kind<T, false, kRows>(launch, p);
}

}  // namespace

template <class T>
bool thin_product(const Launch& launch, const ThinProduct<T>& p) {
  constexpr int64_t kMostRows = sizeof(T) == 2 ? 64 : 16, kMostColumns = 1 << 30;
  const bool aligned = aligned_for<kWide<T>>(p.x, p.x_step) && aligned_for<kWide<T>>(p.w, p.w_step) &&
                       aligned_for<kWide<T>>(p.norm_weight);
  if (p.m > kMostRows || p.n > kMostColumns || p.k > kMostColumns || p.k % kWide<T> != 0 || !aligned) return false;
  if constexpr (sizeof(T) == 4) {
    if (p.m <= 4)
      p.m == 1 ? launch_rows<T, 1>(launch, p) : launch_rows<T, 4>(launch, p);
    else
      p.m <= 8 ? launch_rows<T, 8>(launch, p) : launch_rows<T, 16>(launch, p);
  } else if (p.m <= 16) {
    p.m <= 8 ? launch_rows<T, 8>(launch, p) : launch_rows<T, 16>(launch, p);
  } else {
    launch_rows<T, 32>(launch, p);
  }
  return true;
}

template bool thin_product(const Launch&, const ThinProduct<float>&);
template bool thin_product(const Launch&, const ThinProduct<bfloat16>&);

}  // namespace monoid::cuda

// Attention of few queries over many keys: a block reads a stretch of 256 keys,
// always the same, for all the query rows that share a key head; what the
// stretches know of the softmax is combined in their order. Keys and values go
// from memory straight into the registers in which tensor cores want them: a
// lane reads sixteen bytes of a row, and which channel counts as which column
// is a matter of agreement. Floor: keys and values once.

#include "monoid/kernels/cuda/attention_decode.h"

#include "monoid/kernels/cuda/device/attention.cuh"
#include "monoid/kernels/cuda/device/tensor_core.cuh"
#include "monoid/kernels/monoid.h"

namespace monoid::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kStretch = 256;    // keys of a block
constexpr int kMostRows = 16;    // query rows that share a key head
constexpr int kLeastKeys = 512;  // fewer are quick enough without
constexpr int kMostChannels = 128;

struct BaseTwo {
  MONOID_HOST_DEVICE static float exp(float x) { return exp2f(x); }
  MONOID_HOST_DEVICE static float log(float x) { return log2f(x); }
};
using Partial = SoftmaxPartial<float, BaseTwo>;

template <class T>
struct DecodeCall {
  AttentionCall call;
  Heads<const T> q, k, v;
  Heads<T> output;
  float* log_sum_exp;
  int rows, splits;
  float2* sums;    // [batch, key head, split, row]: greatest score and sum
  float* outputs;  // [batch, key head, split, row, kHead]
};

/// Four registers of a row of a head, or zeros where there is nothing.
template <class T>
__device__ __forceinline__ uint4 fetch(const HeadRows<const T>& rows, int row, int channel, bool exists) {
  if (!exists || channel >= rows.channels) return {0, 0, 0, 0};
  return __ldcs(reinterpret_cast<const uint4*>(rows.data + row * rows.step + channel));
}

// A warp's share of a stretch: sixteen keys at a time against all rows. Sums of
// a row lie in the lanes that hold it.
template <class T, int kHead, int kHeld>
struct Reader;

/// Tensor cores: lane (g, t) = (lane / 4, lane % 4) holds row g and, of more
/// than eight, g + 8. As the left side of scores, t has channels 8 t .. of each
/// 32; as the right side of the mix, g has channels 8 g .. of each 64.
template <int kHead, int kHeld>
struct Reader<bfloat16, kHead, kHeld> {
  static constexpr int kKeys = 16, kChunks = kHead / 32, kBlocks = kHead / 64;

  __device__ Reader(const DecodeCall<bfloat16>& args, int batch, int key_head)
      : keys(args.k.rows(batch, key_head)), values(args.v.rows(batch, key_head)) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int row = row_of(i);
      const auto rows = args.q.rows(batch, key_head * args.call.group + row % args.call.group);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const uint4 x = fetch(rows, row / args.call.group, 32 * c + 8 * t(), row < args.rows);
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
  __device__ void fetch_tile(Tile& tile, int key, Stretch there) const {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int at = key + 8 * n + g();
        tile.k[n][c] = fetch(keys, at, 32 * c + 8 * t(), there.has(at));
      }
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = key + key_of(n);
        tile.v[n][b] = fetch(values, at, 64 * b + 8 * g(), there.has(at));
      }
  }
  __device__ void scores(const Tile& tile, float (&s)[kHeld][4]) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) s[i][2 * n] = s[i][2 * n + 1] = 0;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const uint4 k = tile.k[n][c];
        multiply_add(s, 2 * n, q[2 * c], k.x, k.y);
        multiply_add(s, 2 * n, q[2 * c + 1], k.z, k.w);
      }
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

template <class T, int kHead, int kHeld>
__global__ void __launch_bounds__(kThreads, kHeld == 1 && kHead == 64 ? 4 : 2)
    decode_kernel(const __grid_constant__ DecodeCall<T> args) {
  using Read = Reader<T, kHead, kHeld>;
  __shared__ float2 warp_sums[kWarps][8 * kHeld];
  __shared__ __align__(16) float warp_mix[kWarps][8 * kHeld][kHead + 4];
  const AttentionCall& call = args.call;
  // The heads of a key lie side by side: blocks that run together read whole
  // pages.
  const int key_head = static_cast<int>(blockIdx.x) % call.key_heads;
  const int split = static_cast<int>(blockIdx.x) / call.key_heads % args.splits;
  const int batch = static_cast<int>(blockIdx.x) / args.splits / call.key_heads;
  const Sequence sequence(call, batch);
  const Stretch reach = sequence.together(0, call.queries - 1);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int begin = split * kStretch, end = min(begin + kStretch, reach.end);
  if (begin >= reach.end || begin + kStretch <= reach.first) return;  // the combination knows

  Read reader(args, batch, key_head);
  Stretch seen[kHeld];
  float greatest[kHeld], sum[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int row = Read::row_of(i);
    seen[i] = row < args.rows ? sequence.seen(row / call.group) : Stretch{0, 0};
    greatest[i] = -kInfinite, sum[i] = 0;
  }
  // Warps take turns, the next tile is on its way while one is used.
  constexpr int kStep = kWarps * Read::kKeys;
  typename Read::Tile tile, next;
  int key = begin + warp * Read::kKeys;
  reader.fetch_tile(tile, key, {reach.first, end});
  for (; key < end; key += kStep) {
    reader.fetch_tile(next, key + kStep, {reach.first, end});
    float p[kHeld][4], keep[kHeld];
    reader.scores(tile, p);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      float top = greatest[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        p[i][j] = seen[i].has(key + Read::key_of(j)) ? p[i][j] * call.scale_log2 : -kInfinite;
        top = fmaxf(top, p[i][j]);
      }
      top = Read::row_max(top);
      const float shift = top == -kInfinite ? 0 : top;
      keep[i] = exp2_approximate(greatest[i] - shift);
      greatest[i] = top;
      sum[i] *= keep[i];
#pragma unroll
      for (float& x : p[i]) {
        x = exp2_approximate(x - shift);
        sum[i] += x;
      }
    }
    reader.absorb(tile, p, keep);
    tile = next;
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const float total = Read::row_sum(sum[i]);
    warp_sums[warp][Read::row_of(i)] = {greatest[i], total};
  }
  reader.for_each_four([&](int i, int channel, const float4& four) {
    *reinterpret_cast<float4*>(&warp_mix[warp][Read::row_of(i)][channel]) = four;
  });
  __syncthreads();

  const int64_t place = static_cast<int64_t>(batch * call.key_heads + key_head) * args.splits + split;
  for (int at = static_cast<int>(threadIdx.x); at < args.rows * kHead; at += kThreads) {
    const int row = at / kHead, channel = at % kHead;
    Partial all = Partial::identity();
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      all = combine(all, Partial{warp_sums[w][row].x, warp_sums[w][row].y, warp_mix[w][row][channel]});
    args.outputs[(place * args.rows + row) * kHead + channel] = all.output;
    if (channel == 0) args.sums[place * args.rows + row] = {all.max, all.sum};
  }
}

constexpr int kSlices = 4;  // of the splits of a row, each combined by threads of its own

/// A block for a row: in x its channels, in y slices of its splits.
template <class T, int kHead>
__global__ void __launch_bounds__(kHead* kSlices) combine_kernel(const __grid_constant__ DecodeCall<T> args) {
  __shared__ Partial slices[kSlices][kHead];
  const AttentionCall& call = args.call;
  const int row = static_cast<int>(blockIdx.x) % args.rows;
  const int key_head = static_cast<int>(blockIdx.x) / args.rows % call.key_heads;
  const int batch = static_cast<int>(blockIdx.x) / args.rows / call.key_heads;
  const Stretch reach = Sequence(call, batch).together(0, call.queries - 1);
  const int channel = static_cast<int>(threadIdx.x), slice = static_cast<int>(threadIdx.y);
  const bool any = reach.end > reach.first;
  const int first = any ? reach.first / kStretch : 0, end = any ? (reach.end + kStretch - 1) / kStretch : 0;
  const int each = (end - first + kSlices - 1) / kSlices;
  const int64_t place = static_cast<int64_t>(batch * call.key_heads + key_head) * args.splits;
  Partial mine = Partial::identity();
#pragma unroll 8
  for (int split = first + slice * each; split < min(first + (slice + 1) * each, end); ++split) {
    const int64_t at = (place + split) * args.rows + row;
    const float2 sums = args.sums[at];
    mine = combine(mine, Partial{sums.x, sums.y, args.outputs[at * kHead + channel]});
  }
  slices[slice][channel] = mine;
  __syncthreads();
  if (slice != 0) return;
  for (int s = 1; s < kSlices; ++s) mine = combine(mine, slices[s][channel]);
  const int query = row / call.group, head = key_head * call.group + row % call.group;
  const HeadRows<T> to = args.output.rows(batch, head);
  if (channel < to.channels) to.data[query * to.step + channel] = narrow<T>(mine.average());
  if (channel == 0)
    args.log_sum_exp[static_cast<int64_t>(batch * call.heads + head) * call.queries + query] = mine.log_sum() * kLn2;
}

template <class T, int kHead>
void run(const Launch& launch, DecodeCall<T>& args) {
  const int64_t heads = static_cast<int64_t>(args.call.batch) * args.call.key_heads;
  const int64_t partials = heads * args.splits * args.rows;
  const Tensor memory = Tensor::empty({partials * (kHead + 2)}, DType::f32, Device{DeviceKind::cuda, launch.index()});
  args.sums = static_cast<float2*>(memory.raw());
  args.outputs = static_cast<float*>(memory.raw()) + 2 * partials;
  launch(args.rows <= 8 ? decode_kernel<T, kHead, 1> : decode_kernel<T, kHead, 2>,
         static_cast<unsigned>(heads * args.splits), kThreads, args);
  launch(combine_kernel<T, kHead>, static_cast<unsigned>(heads * args.rows), dim3(kHead, kSlices), args);
}

}  // namespace

bool decodes(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& spec) {
  if (q.dtype() != DType::bf16 || spec.dropout > 0 || k.size(2) == 0) return false;
  return q.size(1) * (q.size(2) / k.size(2)) <= kMostRows && k.size(1) >= kLeastKeys && q.size(3) <= kMostChannels &&
         v.size(3) <= kMostChannels && Heads<const bfloat16>(q).wide && Heads<const bfloat16>(k).wide &&
         Heads<const bfloat16>(v).wide;
}

void attention_decode(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
                      const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp) {
  const Launch launch("attention", q);
  using T = bfloat16;
  DecodeCall<T> args{AttentionCall(q, k, first_key, end_key, spec),
                     Heads<const T>(q),
                     Heads<const T>(k),
                     Heads<const T>(v),
                     Heads<T>(output),
                     log_sum_exp.data<float>(),
                     0,
                     static_cast<int>(blocks_for(k.size(1), kStretch)),
                     nullptr,
                     nullptr};
  args.rows = args.call.queries * args.call.group;
  if (std::max(q.size(3), v.size(3)) <= 64) {
    run<T, 64>(launch, args);
  } else {
    run<T, 128>(launch, args);
  }
}

}  // namespace monoid::cuda

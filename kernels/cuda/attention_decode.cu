// Attention of few queries over many keys: a block reads a stretch of keys, always the same ones, for all the query
// rows that share a key head; what the stretches know of the softmax is combined in their order. Floor: keys and values
// once.

#include "monoid/kernels/cuda/attention_decode.h"

#include "monoid/kernels/cuda/device/attention_reader.cuh"
#include "monoid/kernels/monoid.h"

namespace monoid::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
template <class T>
constexpr int kMostRows = std::is_same_v<T, float> ? 8 : 16;  // query rows that share a key head
constexpr int kLeastKeys = 512;                               // fewer are quick enough without
constexpr int kMostChannels = 128;

// Keys of a block: longer stretches spend less time on their ends, shorter ones are more blocks. The number of keys
// alone decides, so that a sequence gives the same bits in any batch.
constexpr int stretch_of(int64_t keys) { return keys < 8192 ? 256 : 512; }

struct BaseTwo {
  MONOID_HOST_DEVICE static float exp(float x) { return exp2f(x); }
  MONOID_HOST_DEVICE static float log(float x) { return log2f(x); }
};
using Partial = SoftmaxPartial<float, BaseTwo>;

template <class T, int kHead, int kHeld>
__global__ void __launch_bounds__(kThreads, kHead == 64 ? 3 : 2)
    decode_kernel(const __grid_constant__ DecodeCall<T> args) {
  using Read = Reader<T, kHead, kHeld>;
  __shared__ float2 warp_sums[kWarps][Read::kRows];
  __shared__ __align__(16) float warp_mix[kWarps][Read::kRows][kHead + 4];
  const AttentionCall& call = args.call;
  // The heads of a key lie side by side: blocks that run together read whole pages.
  const int key_head = static_cast<int>(blockIdx.x) % call.key_heads;
  const int split = static_cast<int>(blockIdx.x) / call.key_heads % args.splits;
  const int batch = static_cast<int>(blockIdx.x) / args.splits / call.key_heads;
  const Sequence sequence(call, batch);
  const Stretch reach = sequence.together(0, call.queries - 1);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int begin = split * args.stretch, end = min(begin + args.stretch, reach.end);
  if (begin >= reach.end || begin + args.stretch <= reach.first) return;  // the combination knows

  Read reader(args, batch, key_head);
  Stretch seen[kHeld];
  float greatest[kHeld], sum[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int row = Read::row_of(i);
    seen[i] = row < args.rows ? sequence.seen(row / call.group) : Stretch{0, 0};
    greatest[i] = -kInfinite, sum[i] = 0;
  }
  // Warps take turns. The next keys are asked for once these are used, and so are the values.
  constexpr int kStep = kWarps * Read::kKeys;
  typename Read::Tile tile;
  int key = begin + warp * Read::kKeys;
  const Stretch there{reach.first, end};
  reader.fetch_keys(tile, key, there);
  reader.fetch_values(tile, key, there);
#pragma unroll 1
  for (; key < end; key += kStep) {
    float p[kHeld][4], keep[kHeld];
    reader.scores(tile, p);
    reader.fetch_keys(tile, key + kStep, there);
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
    reader.fetch_values(tile, key + kStep, there);
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

constexpr int kSlices = 8;  // of the splits of a row, each combined by threads of its own

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
  const int first = any ? reach.first / args.stretch : 0;
  const int end = any ? (reach.end + args.stretch - 1) / args.stretch : 0;
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
  const auto decode = [&] {
    if constexpr (std::is_same_v<T, float>)
      return args.rows == 1   ? decode_kernel<T, kHead, 1>
             : args.rows <= 4 ? decode_kernel<T, kHead, 4>
                              : decode_kernel<T, kHead, 8>;
    else
      return args.rows <= 8 ? decode_kernel<T, kHead, 1> : decode_kernel<T, kHead, 2>;
  }();
  launch(decode, static_cast<unsigned>(heads * args.splits), kThreads, args);
  launch(combine_kernel<T, kHead>, static_cast<unsigned>(heads * args.rows), dim3(kHead, kSlices), args);
}

}  // namespace

bool decodes(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& spec) {
  if (spec.dropout > 0 || k.size(2) == 0 || k.size(1) < kLeastKeys) return false;
  if (std::max(q.size(3), v.size(3)) > kMostChannels) return false;
  return dispatch_storage("attention", q.dtype(), [&]<class T>() {
    return q.size(1) * (q.size(2) / k.size(2)) <= kMostRows<T> && Heads<const T>(q).wide && Heads<const T>(k).wide &&
           Heads<const T>(v).wide;
  });
}

void attention_decode(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
                      const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp) {
  const Launch launch("attention", q);
  dispatch_storage("attention", q.dtype(), [&]<class T>() {
    const int stretch = stretch_of(k.size(1));
    DecodeCall<T> args{AttentionCall(q, k, first_key, end_key, spec),
                       Heads<const T>(q),
                       Heads<const T>(k),
                       Heads<const T>(v),
                       Heads<T>(output),
                       log_sum_exp.data<float>(),
                       0,
                       stretch,
                       static_cast<int>(blocks_for(k.size(1), stretch)),
                       nullptr,
                       nullptr};
    args.rows = args.call.queries * args.call.group;
    if (std::max(q.size(3), v.size(3)) <= 64) {
      run<T, 64>(launch, args);
    } else {
      run<T, 128>(launch, args);
    }
  });
}

}  // namespace monoid::cuda

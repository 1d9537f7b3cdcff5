// Attention without the matrix of scores (Dao, "FlashAttention-2", 2023): a block keeps a tile of queries and walks
// over the tiles of keys that its mask reaches, two of them in shared memory. A row carries its largest score, the sum
// of exponentials below it and the mix of values, and is rescaled when a larger score comes. Exponentials are in base
// 2, with the scale folded into the one multiply-add before. On Hopper one tile's scores and the mix of the tile before
// are under way while warps take exponentials. Floor: 4 operations a visible pair and channel; at 64 channels
// exponentials take as long.

#include "monoid/kernels/cuda/attention_decode.h"
#include "monoid/kernels/cuda/device/attention_dropout.cuh"

namespace monoid::cuda {
namespace {

template <class T, int kHead_>
struct Forward {
  static constexpr int kHead = kHead_;
  static constexpr bool kExact = std::is_same_v<T, float>;
  // Small heads: three blocks of one warpgroup each, so that one takes exponentials while another multiplies.
  static constexpr int kWarps = kExact == (kHead > 64) ? 4 : 8, kThreads = 32 * kWarps, kRows = kWarpRows * kWarps;
  static constexpr int kResident = !kExact && kHead <= 64 ? 3 : 1;
  static constexpr int kColumns = kExact ? (kHead > 64 ? 32 : 64) : (kHead > 128 ? 64 : 128);
  using Rows = HeadTile<T, kRows, kHead>;
  using Columns = HeadTile<T, kColumns, kHead>;
  static constexpr size_t shared_bytes(int stages) {
    return Rows::kBytes + 2 * stages * Columns::kBytes + kWarps * kScratchBytes<T, kColumns>;
  }
};

template <class T>
struct ForwardCall {
  AttentionCall call;
  Heads<const T> q, k, v;
  Heads<T> output;
  float* log_sum_exp;
  int tiles;   // of queries
  int stages;  // tiles of keys and values in shared memory
};

template <class Shape, class T, bool kDropout>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kResident)
    forward_kernel(const __grid_constant__ ForwardCall<T> args) {
  using P = Products<T>;
  using Rows = typename Shape::Rows;
  using Columns = typename Shape::Columns;
  constexpr int kColumns = Shape::kColumns, kHeld = P::kHeld;
  extern __shared__ __align__(1024) char memory[];
  const AttentionCall& call = args.call;
  // The longest rows of a causal mask come first, so that short ones fill the gaps at the end.
  const int tile = args.tiles - 1 - static_cast<int>(blockIdx.x) % args.tiles;
  const int head = static_cast<int>(blockIdx.x) / args.tiles % call.heads;
  const int batch = static_cast<int>(blockIdx.x) / args.tiles / call.heads;
  const int warp = warp_of_block(), warp_row = warp * kWarpRows;
  const int first = tile * Shape::kRows, last = min(first + Shape::kRows, call.queries) - 1;
  const Sequence sequence(call, batch);
  const Stretch reach = sequence.together(first, last), common = sequence.common(first, last);
  const Stretch there{sequence.first, sequence.end};

  const Rows q{memory};
  char* const ring = memory + Rows::kBytes;
  char* const scratch = ring + 2 * args.stages * Columns::kBytes + warp * kScratchBytes<T, kColumns>;
  const auto keys_of = [&](int step) { return Columns{ring + (step & (args.stages - 1)) * Columns::kBytes}; };
  const auto values_of = [&](int step) {
    return Columns{ring + (args.stages + (step & (args.stages - 1))) * Columns::kBytes};
  };
  const HeadRows<const T> keys = args.k.rows(batch, head / call.group), values = args.v.rows(batch, head / call.group);

  float greatest[kHeld], sum[kHeld];
  Stretch seen[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    greatest[i] = -kInfinite, sum[i] = 0;
    seen[i] = sequence.seen(first + warp_row + P::row(i));
  }
  typename P::template Block<Shape::kHead> mix;
  clear(mix);
  // A negative scale turns the order of scores around, and 0 makes them equal: such scores change with the mask.
  const bool positive = call.scale_log2 > 0;
  const float sign = call.scale_log2 < 0 ? -1 : 0, scale = call.scale_log2 != 0 ? fabsf(call.scale_log2) : 1;

  const int begin = reach.first / kColumns * kColumns;
  const int steps = reach.end > begin ? (reach.end - begin + kColumns - 1) / kColumns : 0;
  // Step n has the scores of tile n and the mix of the tile before it: products that do not wait for each other, nor
  // for the exponentials of other warps.
  const auto load_step = [&](int step) {
    if (step < steps) load_tile<Shape::kThreads>(keys_of(step), keys, begin + step * kColumns, there);
    if (step > 0) load_tile<Shape::kThreads>(values_of(step - 1), values, begin + (step - 1) * kColumns, there);
    commit_copies();
  };
  const auto await_step = [&](int step) {
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();
    if (args.stages > 1 && step < steps) load_step(step + 1);
  };
  typename P::template Block<kColumns> p;
  float keep[kHeld];
  const auto soften = [&](int key) {
    hold(p);
    if (key < common.first || key + kColumns > common.end || !positive) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
#pragma unroll
        for (int j = 0; j < kColumns / P::kSharing; ++j)
          p[i][j] = !seen[i].has(key + P::column(j)) ? -kInfinite : positive ? p[i][j] : p[i][j] * sign;
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      float top = p[i][0];
#pragma unroll
      for (float x : p[i]) top = fmaxf(top, x);
      top = fmaxf(greatest[i], largest_of_row<P::kSharing>(top));
      const float shift = top == -kInfinite ? 0 : top * scale;
      keep[i] = exp2_approximate(fmaf(greatest[i], scale, -shift));
      greatest[i] = top;
      float total = 0;
#pragma unroll
      for (float& x : p[i]) {
        x = exp2_approximate(fmaf(x, scale, -shift));
        total += x;
      }
      sum[i] = fmaf(sum[i], keep[i], total);
    }
    if constexpr (kDropout) {
      const Losses losses(call, batch * call.heads + head);
      for_each_weight<T, Side::queries, kColumns>(losses, first + warp_row, key,
                                                  [&](int i, int j, bool kept) { p[i][j] = kept ? p[i][j] : 0; });
    }
    hold(p);
  };

  load_tile<Shape::kThreads>(q, args.q.rows(batch, head), first, {0, call.queries});
  load_step(0);
  if (steps > 0) {
    await_step(0);
    P::start_scores(q, warp_row, keys_of(0), p);
    P::template finish<Columns, 0>();
    soften(begin);
    for (int step = 1; step < steps; ++step) {
      typename P::template Weights<kColumns> weights(p);
      if (args.stages == 1) __syncthreads(), load_step(step);
      await_step(step);
      P::start_scores(q, warp_row, keys_of(step), p);
      P::start_mix(weights, values_of(step - 1), mix, scratch);
      P::template finish<Columns, 1>();
      soften(begin + step * kColumns);
      P::template finish<Columns, 0>();
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
#pragma unroll
        for (float& x : mix[i]) x *= keep[i];
    }
    typename P::template Weights<kColumns> weights(p);
    if (args.stages == 1) __syncthreads(), load_step(steps);
    await_step(steps);
    P::start_mix(weights, values_of(steps - 1), mix, scratch);
    P::template finish<Columns, 0>();
  }

  float normalise[kHeld];
  float* const log_sums = args.log_sum_exp + static_cast<int64_t>(batch * call.heads + head) * call.queries;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const float total = sum_of_row<P::kSharing>(sum[i]);
    normalise[i] = total == 0 ? 0 : (kDropout ? call.kept_scale : 1.f) / total;
    const int query = first + warp_row + P::row(i);
    if (threadIdx.x % P::kSharing == 0 && query < call.queries)
      log_sums[query] = total == 0 ? -kInfinite : fmaf(greatest[i], scale * kLn2, logf(total));
  }
  P::template store<Shape::kHead>(mix, normalise, args.output.rows(batch, head), first + warp_row, call.queries);
}

template <class T, int kHead, bool kDropout>
void run(const Launch& launch, ForwardCall<T>& args) {
  using Shape = Forward<T, kHead>;
  args.tiles = static_cast<int>(blocks_for(args.call.queries, Shape::kRows));
  args.stages = Shape::shared_bytes(2) <= launch.device().shared_bytes_per_block ? 2 : 1;
  const int64_t blocks = static_cast<int64_t>(args.tiles) * args.call.heads * args.call.batch;
  launch.with_shared(forward_kernel<Shape, T, kDropout>, static_cast<unsigned>(blocks), Shape::kThreads,
                     Shape::shared_bytes(args.stages), args);
}

}  // namespace

void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
               const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp) {
  if (log_sum_exp.elements() == 0) return;
  if (decodes(q, k, v, spec)) return attention_decode(q, k, v, first_key, end_key, spec, output, log_sum_exp);
  const Launch launch("attention", q);
  dispatch_storage("attention", q.dtype(), [&]<class T>() {
    ForwardCall<T> args{AttentionCall(q, k, first_key, end_key, spec),
                        Heads<const T>(q),
                        Heads<const T>(k),
                        Heads<const T>(v),
                        Heads<T>(output),
                        log_sum_exp.data<float>(),
                        0,
                        0};
    dispatch_head(std::max(q.size(3), v.size(3)), [&]<int kHead>() {
      if (spec.dropout > 0) {
        run<T, kHead, true>(launch, args);
      } else {
        run<T, kHead, false>(launch, args);
      }
    });
  });
}

}  // namespace monoid::cuda

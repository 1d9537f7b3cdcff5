// The gradients of attention, from the output and each row's log-sum-exp: weights are computed again, nothing of the
// matrix of scores is stored. Two kernels of one form, so that every sum has one owner and a fixed order, without
// atomics: a block keeps a tile of rows (keys for dK and dV, queries for dQ) and walks over the tiles of the other side
// that see it. In both the scores stand with the rows that sum, so they go from one product to the next in registers.
// Floor: 10 operations a visible pair and channel; two kernels make that 14.

#include "monoid/kernels/cuda/attention_parts.h"
#include "monoid/kernels/cuda/device/attention_dropout.cuh"

namespace monoid::cuda {
namespace {

template <class T, int kHead_, Side kRowSide>
struct Backward {
  static constexpr int kHead = kHead_;
  static constexpr bool kExact = std::is_same_v<T, float>;
  static constexpr int kWarps = kExact && kHead > 64 ? 4 : 8, kThreads = 32 * kWarps, kRows = kWarpRows * kWarps;
  static constexpr int kColumns = kExact                                 ? (kHead > 64 ? 32 : 64)
                                  : kHead > 128                          ? 32
                                  : kHead > 64 && kRowSide == Side::keys ? 64
                                                                         : 128;
  using Rows = HeadTile<T, kRows, kHead>;
  using Columns = HeadTile<T, kColumns, kHead>;
  static constexpr size_t kInfoBytes = kColumns * (2 * sizeof(float) + sizeof(Stretch));
  static constexpr size_t shared_bytes(int stages) {
    return 2 * Rows::kBytes + stages * (2 * Columns::kBytes + kInfoBytes) + kWarps * kScratchBytes<T, kColumns>;
  }
};

/// Which sums a kernel of the key side makes.
enum class Sums { both, from_scores, from_weights };

template <class T>
struct BackwardCall {
  AttentionCall call;
  Heads<const T> q, k, v, output_cotangent;
  Heads<T> q_gradient, k_gradient, v_gradient;
  const float *log_sums, *offs;  // of each query: its log-sum-exp in base 2, and what is taken off dP
  int tiles;
  int stages;
};

// ---------------------------------------------------------------------------------------------------------------- rows

template <class T>
struct RowCall {
  Heads<const T> output, output_cotangent;
  const float *log_sum_exp, *log_sum_exp_cotangent;
  int64_t cotangent_steps[3];
  uint32_t heads, queries, count;
  float *log_sums, *offs;
};

/// Eight lanes a row. A row without keys has weights exp2(s - inf) = 0.
template <class T>
__global__ void __launch_bounds__(256) row_kernel(const __grid_constant__ RowCall<T> args) {
  constexpr int kPack = kWide<T>;
  const uint32_t at = blockIdx.x * 32 + threadIdx.x / 8;  // in 64 bits, divisions would take as long as all else
  const int lane = static_cast<int>(threadIdx.x) % 8;
  const uint32_t row = min(at, args.count - 1);  // all lanes stay for the sum
  const int query = static_cast<int>(row % args.queries), head = static_cast<int>(row / args.queries % args.heads);
  const int batch = static_cast<int>(row / args.queries / args.heads);
  const HeadRows<const T> o = args.output.rows(batch, head), d = args.output_cotangent.rows(batch, head);
  float sum = 0;
  for (int c = lane * kPack; c < o.channels; c += 8 * kPack) {
    if (o.wide && d.wide) {
      float x[kPack], y[kPack];
      load<kPack>(o.data + query * o.step + c, x);
      load<kPack>(d.data + query * d.step + c, y);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum = fmaf(x[i], y[i], sum);
    } else {
      for (int i = c; i < min(c + kPack, o.channels); ++i)
        sum = fmaf(widen(o.data[query * o.step + i]), widen(d.data[query * d.step + i]), sum);
    }
  }
  sum = sum_of_row<8>(sum);
  if (lane != 0 || at >= args.count) return;
  if (args.log_sum_exp_cotangent)
    sum -= args.log_sum_exp_cotangent[batch * args.cotangent_steps[0] + head * args.cotangent_steps[1] +
                                      query * args.cotangent_steps[2]];
  const float log_sum = args.log_sum_exp[row];
  args.log_sums[row] = log_sum == -kInfinite ? kInfinite : log_sum * kLog2e;
  args.offs[row] = sum;
}

// ----------------------------------------------------------------------------------------------------------- gradients

template <class Shape, class T, Side kRowSide, Sums kSums, bool kDropout>
__global__ void __launch_bounds__(Shape::kThreads) gradient_kernel(const __grid_constant__ BackwardCall<T> args) {
  using P = Products<T>;
  using Rows = typename Shape::Rows;
  using Columns = typename Shape::Columns;
  constexpr bool kOfQueries = kRowSide == Side::queries;
  constexpr bool kFromScores = kSums != Sums::from_weights, kFromWeights = kSums != Sums::from_scores;
  constexpr int kColumns = Shape::kColumns, kHeld = P::kHeld, kEach = kColumns / P::kSharing;
  extern __shared__ __align__(1024) char memory[];
  const AttentionCall& call = args.call;
  // Rows with the longest way come first: the last queries, the first keys.
  const int heads = kOfQueries ? call.heads : call.key_heads, rows = kOfQueries ? call.queries : call.keys;
  const int place = static_cast<int>(blockIdx.x) % args.tiles, tile = kOfQueries ? args.tiles - 1 - place : place;
  const int row_head = static_cast<int>(blockIdx.x) / args.tiles % heads;
  const int batch = static_cast<int>(blockIdx.x) / args.tiles / heads;
  const int warp = warp_of_block(), warp_row = warp * kWarpRows;
  const int first = tile * Shape::kRows, last = min(first + Shape::kRows, rows) - 1;
  const Sequence sequence(call, batch);
  const Stretch all_queries{0, call.queries}, all_keys{sequence.first, sequence.end};
  const Stretch reach = kOfQueries ? sequence.together(first, last) : sequence.seeing(first, last);

  const Rows left{memory}, left_output{memory + Rows::kBytes};
  char* const ring = memory + 2 * Rows::kBytes;
  constexpr size_t kStageBytes = 2 * Columns::kBytes;
  char* const infos = ring + args.stages * kStageBytes;
  char* const scratch = infos + args.stages * Shape::kInfoBytes + warp * kScratchBytes<T, kColumns>;
  const auto right_of = [&](int stage) { return Columns{ring + stage * kStageBytes}; };
  const auto right_output_of = [&](int stage) { return Columns{ring + stage * kStageBytes + Columns::kBytes}; };
  const auto log_sums_of = [&](int stage) { return reinterpret_cast<float*>(infos) + 2 * stage * kColumns; };
  const auto seen_of = [&](int stage) {
    return reinterpret_cast<Stretch*>(infos + args.stages * kColumns * 2 * sizeof(float)) + stage * kColumns;
  };

  // A step is a tile of keys, or one of queries of one of the heads that share the key head.
  const int begin = reach.first / kColumns * kColumns;
  const int steps_each = reach.end > begin ? (reach.end - begin + kColumns - 1) / kColumns : 0;
  const int steps = kOfQueries ? steps_each : steps_each * call.group;
  const auto head_of = [&](int step) { return kOfQueries ? row_head : row_head * call.group + step / steps_each; };
  const auto column_of = [&](int step) { return begin + step % steps_each * kColumns; };
  const auto sums_at = [&](int head) { return static_cast<int64_t>(batch * call.heads + head) * call.queries; };
  const auto load_step = [&](int stage, int step) {
    const int head = head_of(step), column = column_of(step);
    if constexpr (kOfQueries) {
      const int key_head = head / call.group;
      load_tile<Shape::kThreads>(right_of(stage), args.k.rows(batch, key_head), column, all_keys);
      load_tile<Shape::kThreads>(right_output_of(stage), args.v.rows(batch, key_head), column, all_keys);
    } else {
      load_tile<Shape::kThreads>(right_of(stage), args.q.rows(batch, head), column, all_queries);
      load_tile<Shape::kThreads>(right_output_of(stage), args.output_cotangent.rows(batch, head), column, all_queries);
      if (const int c = static_cast<int>(threadIdx.x); c < kColumns) {
        const int query = column + c;
        const bool exists = query < call.queries;
        const int64_t at = sums_at(head) + (exists ? query : 0);
        copy_async_word(log_sums_of(stage) + c, args.log_sums + at, exists);
        copy_async_word(log_sums_of(stage) + kColumns + c, args.offs + at, exists);
        seen_of(stage)[c] = sequence.seen(query);
      }
    }
    commit_copies();
  };

  Stretch seen[kHeld];
  float row_log_sums[kHeld], row_offs[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int row = first + warp_row + P::row(i);
    seen[i] = sequence.seen(row);
    row_log_sums[i] = kOfQueries && row < rows ? args.log_sums[sums_at(row_head) + row] : kInfinite;
    row_offs[i] = kOfQueries && row < rows ? args.offs[sums_at(row_head) + row] : 0;
  }
  typename P::template Block<kFromScores ? Shape::kHead : P::kSharing> from_scores;
  typename P::template Block<kFromWeights ? Shape::kHead : P::kSharing> from_weights;
  clear(from_scores);
  clear(from_weights);

  if constexpr (kOfQueries) {
    load_tile<Shape::kThreads>(left, args.q.rows(batch, row_head), first, all_queries);
    load_tile<Shape::kThreads>(left_output, args.output_cotangent.rows(batch, row_head), first, all_queries);
  } else {
    load_tile<Shape::kThreads>(left, args.k.rows(batch, row_head), first, all_keys);
    load_tile<Shape::kThreads>(left_output, args.v.rows(batch, row_head), first, all_keys);
  }
  if (steps > 0) load_step(0, 0);
  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    if (args.stages == 1 && step > 0) __syncthreads(), load_step(0, step);
    wait_for_copies<0>();
    publish_to_products();
    __syncthreads();
    if (args.stages > 1 && step + 1 < steps) load_step(stage ^ 1, step + 1);

    const int column = column_of(step);
    const Columns right = right_of(stage), right_output = right_output_of(stage);
    const float *const log_sums = log_sums_of(stage), *const offs = log_sums + kColumns;
    const Stretch* const stretches = seen_of(stage);
    typename P::template Block<kColumns> p, d;
    P::start_scores(left, warp_row, right, p);
    if constexpr (kFromScores) P::start_scores(left_output, warp_row, right_output, d);
    P::template finish<Columns, kFromScores ? 1 : 0>();
    hold(p);

    // Scores to weights: none is above 1, whatever the log-sum of scores of 1e9 says; NaN stays NaN.
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const float log_sum = kOfQueries ? 0 : log_sums[P::column(j)];
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
        p[i][j] =
            exp2_approximate(not_above(fmaf(p[i][j], call.scale_log2, -(kOfQueries ? row_log_sums[i] : log_sum)), 0));
    }
    const Stretch common =
        kOfQueries ? sequence.common(first, last) : sequence.common(column, min(column + kColumns, call.queries) - 1);
    const bool whole =
        kOfQueries ? column >= common.first && column + kColumns <= common.end
                   : first >= common.first && first + Shape::kRows <= common.end && column + kColumns <= call.queries;
    const auto clear_unseen = [&](auto& x) {
      if (whole) return;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const Stretch of_column = kOfQueries ? Stretch{} : stretches[P::column(j)];
#pragma unroll
        for (int i = 0; i < kHeld; ++i) {
          const bool has =
              kOfQueries ? seen[i].has(column + P::column(j)) : of_column.has(first + warp_row + P::row(i));
          x[i][j] = has ? x[i][j] : 0;
        }
      }
    };
    clear_unseen(p);
    uint64_t kept[kHeld];  // a bit each
    if constexpr (kDropout) {
      const Losses losses(call, batch * call.heads + head_of(step));
      const int query = kOfQueries ? first + warp_row : column, key = kOfQueries ? column : first + warp_row;
#pragma unroll
      for (uint64_t& bits : kept) bits = 0;
      for_each_weight<T, kRowSide, kColumns>(
          losses, query, key, [&](int i, int j, bool is_kept) { kept[i] |= static_cast<uint64_t>(is_kept) << j; });
    }
    const auto drop = [&](auto& x) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j) x[i][j] *= kept[i] >> j & 1 ? call.kept_scale : 0;
    };
    // Weights and their cotangents to what is summed: P V and dS.
    if constexpr (kFromWeights) {
      typename P::template Block<kColumns> dropped;
      if constexpr (kDropout) {
#pragma unroll
        for (int i = 0; i < kHeld; ++i)
#pragma unroll
          for (int j = 0; j < kEach; ++j) dropped[i][j] = p[i][j];
        drop(dropped);
      }
      typename P::template Weights<kColumns> weights(kDropout ? dropped : p);
      P::start_mix(weights, right_output, from_weights, scratch);
      if constexpr (kFromScores) P::template finish<Columns, 1>();
    } else {
      hold(p);
      P::template finish<Columns, 0>();
    }
    if constexpr (kFromScores) {
      hold(d);
      clear_unseen(d);
      if constexpr (kDropout) drop(d);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const float off = kOfQueries ? 0 : offs[P::column(j)];
#pragma unroll
        for (int i = 0; i < kHeld; ++i) d[i][j] = p[i][j] * (d[i][j] - (kOfQueries ? row_offs[i] : off));
      }
      typename P::template Weights<kColumns> weights(d);
      P::start_mix(weights, right, from_scores, scratch);
    }
    P::template finish<Columns, 0>();
    stage ^= args.stages - 1;
  }

  float scale[kHeld], one[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) scale[i] = call.scale, one[i] = 1;
  if constexpr (kFromScores) {
    const Heads<T>& to = kOfQueries ? args.q_gradient : args.k_gradient;
    if (to.data) P::template store<Shape::kHead>(from_scores, scale, to.rows(batch, row_head), first + warp_row, rows);
  }
  if constexpr (kFromWeights) {
    const Heads<T>& to = args.v_gradient;
    if (to.data) P::template store<Shape::kHead>(from_weights, one, to.rows(batch, row_head), first + warp_row, rows);
  }
}

template <class T, int kHead, Side kRowSide, Sums kSums, bool kDropout>
void start(const Launch& launch, BackwardCall<T>& args) {
  using Shape = Backward<T, kHead, kRowSide>;
  const AttentionCall& call = args.call;
  const bool of_queries = kRowSide == Side::queries;
  args.stages = Shape::shared_bytes(2) <= launch.device().shared_bytes_per_block ? 2 : 1;
  args.tiles = static_cast<int>(blocks_for(of_queries ? call.queries : call.keys, Shape::kRows));
  const int64_t blocks = static_cast<int64_t>(args.tiles) * (of_queries ? call.heads : call.key_heads) * call.batch;
  launch.with_shared(gradient_kernel<Shape, T, kRowSide, kSums, kDropout>, static_cast<unsigned>(blocks),
                     Shape::kThreads, Shape::shared_bytes(args.stages), args);
}

template <class T, int kHead, bool kDropout>
void run(const Launch& launch, BackwardCall<T>& args) {
  if constexpr (kHead <= 128) {
    if (args.k_gradient.data || args.v_gradient.data) start<T, kHead, Side::keys, Sums::both, kDropout>(launch, args);
  } else {  // registers hold one sum of this size
    if (args.k_gradient.data) start<T, kHead, Side::keys, Sums::from_scores, kDropout>(launch, args);
    if (args.v_gradient.data) start<T, kHead, Side::keys, Sums::from_weights, kDropout>(launch, args);
  }
  if (args.q_gradient.data) start<T, kHead, Side::queries, Sums::from_scores, kDropout>(launch, args);
}

}  // namespace

void attention_gradient(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key,
                        const Tensor& end_key, const AttentionSpec& spec, const Tensor& output,
                        const Tensor& log_sum_exp, const Tensor& output_cotangent, const Tensor& log_sum_exp_cotangent,
                        Tensor& q_gradient, Tensor& k_gradient, Tensor& v_gradient) {
  const Launch launch("attention", q);
  if (parts_of_heads(launch, q, k) > 1)
    return attention_gradient_in_parts(q, k, v, first_key, end_key, spec, output, log_sum_exp, output_cotangent,
                                       log_sum_exp_cotangent, q_gradient, k_gradient, v_gradient);
  const Tensor row_sums = Tensor::empty({2, log_sum_exp.elements()}, DType::f32, q.device());
  float* const log_sums = static_cast<float*>(row_sums.raw());
  dispatch_storage("attention", q.dtype(), [&]<class T>() {
    RowCall<T> sums{Heads<const T>(output),
                    Heads<const T>(output_cotangent),
                    log_sum_exp.data<float>(),
                    address_of<float>(log_sum_exp_cotangent),
                    {},
                    static_cast<uint32_t>(q.size(2)),
                    static_cast<uint32_t>(q.size(1)),
                    static_cast<uint32_t>(log_sum_exp.elements()),
                    log_sums,
                    log_sums + log_sum_exp.elements()};
    if (log_sum_exp_cotangent.defined())
      for (int axis = 0; axis < 3; ++axis) sums.cotangent_steps[axis] = log_sum_exp_cotangent.strides()[axis];
    launch(row_kernel<T>, static_cast<unsigned>(blocks_for(sums.count, 32)), 256, sums);
    BackwardCall<T> args{AttentionCall(q, k, first_key, end_key, spec),
                         Heads<const T>(q),
                         Heads<const T>(k),
                         Heads<const T>(v),
                         Heads<const T>(output_cotangent),
                         Heads<T>(q_gradient),
                         Heads<T>(k_gradient),
                         Heads<T>(v_gradient),
                         sums.log_sums,
                         sums.offs,
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

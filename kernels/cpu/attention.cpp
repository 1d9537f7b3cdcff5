// Attention without the matrix of scores. A task owns some rows of one key head and walks the blocks of keys that they
// see: a tile of scores [key, row] is made, turned into weights and used up while it lies in L1. Rows keep the greatest
// score so far and sums below it; a block that raises it rescales them, as the softmax partial (kernels/monoid.h)
// combines. Floor: 2 (channel + value_channel) operations for each visible pair; the softmax costs about 20 more.

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/attention_tiles.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kKeys = 128;  // a block

// Scores become weights exp2(score - max), where max [lane] grows to cover them; sum [lane] follows, and factor [lane]
// is what earlier sums are worth now.
template <class T>
void weigh(T* tile, int64_t count, T* max, T* sum, T* factor) {
  constexpr int64_t kLanes = kStrip<T>;
  vectorised([=] {
    T greatest[kLanes], shift[kLanes], total[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) greatest[lane] = max[lane];
    for (int64_t n = 0; n < count; ++n) {
      const T* row = tile + n * kLanes;
      for (int64_t lane = 0; lane < kLanes; ++lane)
        greatest[lane] = row[lane] > greatest[lane] ? row[lane] : greatest[lane];
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      factor[lane] = BaseTwoPartial<T>::weight(max[lane], greatest[lane]);
      max[lane] = greatest[lane];
      shift[lane] = greatest[lane] == kMinusInfinity<T> ? T(0) : greatest[lane];
      total[lane] = 0;
    }
    for (int64_t n = 0; n < count; ++n) {
      T* row = tile + n * kLanes;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const T below = row[lane] == shift[lane] ? T(0) : row[lane] - shift[lane];
        const T weight = cpu::exp2(below);
        row[lane] = weight;
        total[lane] += weight;
      }
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) sum[lane] = sum[lane] * factor[lane] + total[lane];
  });
}

template <class T>
void scale_rows(T* rows, int64_t width, const T* factors) {
  vectorised([=] {
    for (int64_t lane = 0; lane < kStrip<T>; ++lane) {
#pragma GCC ivdep
      for (int64_t c = 0; c < width; ++c) rows[lane * width + c] *= factors[lane];
    }
  });
}

template <class T>
class Forward {
 public:
  Forward(const AttentionPlan& plan, const AttentionSpec& spec, const Tensor& q, const Tensor& k, const Tensor& v,
          Tensor& output, Tensor& log_sum_exp)
      : plan_(plan),
        dropout_(spec, plan),
        scale_(static_cast<T>(spec.scale * std::numbers::log2e)),
        q_(q),
        k_(k),
        v_(v),
        output_(output),
        log_sums_(log_sum_exp.data<T>()),
        width_(padded<T>(plan.value_channels)),
        strips_(strips_of_task<T>(plan)) {}

  void run() const {
    const int64_t tasks = (plan_.rows + strips_ * kStrip<T> - 1) / (strips_ * kStrip<T>);
    parallel_for(plan_.batch * plan_.key_heads * tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        // The last rows see the most under a causal mask: first.
        const int64_t task = tasks - 1 - i / (plan_.batch * plan_.key_heads), head = i % plan_.key_heads;
        rows(i / plan_.key_heads % plan_.batch, head, task * strips_ * kStrip<T>);
      }
    });
  }

 private:
  // What a strip of rows has seen so far.
  struct Strip {
    StripKeys<T> seen;
    int64_t row;
    T *columns, *sums, *max, *sum;
  };

  void rows(int64_t sequence, int64_t key_head, int64_t first_row) const {
    constexpr int64_t kLanes = kStrip<T>;
    Scratch<T> scratch{strips_ * kLanes * (plan_.channels + width_ + 2), kKeys * (width_ + 2 * kLanes), 3 * kLanes};
    std::vector<Strip> strips;
    KeyRange seen{0, 0};
    for (int64_t row = first_row; row < std::min(plan_.rows, first_row + strips_ * kLanes); row += kLanes) {
      Strip strip{{plan_, sequence, row},
                  row,
                  scratch.take(plan_.channels * kLanes),
                  scratch.take(width_ * kLanes),
                  scratch.take(kLanes),
                  scratch.take(kLanes)};
      transpose_strip<T>([&](int64_t lane) { return q_row(sequence, key_head, row + lane); }, plan_.channels, scale_,
                         strip.columns);
      std::fill_n(strip.sums, width_ * kLanes, T(0));
      std::fill_n(strip.max, kLanes, kMinusInfinity<T>);
      std::fill_n(strip.sum, kLanes, T(0));
      seen = hull(seen, strip.seen.any);
      strips.push_back(strip);
    }
    T *values = scratch.take(kKeys * width_), *tile = scratch.take(kKeys * kLanes);
    T *kept = scratch.take(kKeys * kLanes), *factor = scratch.take(kLanes);
    for (int64_t key = seen.first / kKeys * kKeys; key < seen.end; key += kKeys) {
      const KeyRange block = overlap({key, key + kKeys}, seen);
      copy_rows(v_.at(sequence, block.first, key_head), v_.time_step, block.end - block.first, plan_.value_channels,
                values);
      for (Strip& strip : strips) add_block(sequence, key_head, block, values, strip, tile, kept, factor);
    }
    for (const Strip& strip : strips) finish(sequence, key_head, strip);
  }

  const T* q_row(int64_t sequence, int64_t key_head, int64_t row) const {
    return row < plan_.rows ? q_.at(sequence, plan_.query(row), plan_.head(key_head, row)) : nullptr;
  }

  void add_block(int64_t sequence, int64_t key_head, const KeyRange& block, const T* values, Strip& strip, T* tile,
                 T* kept, T* factor) const {
    constexpr int64_t kLanes = kStrip<T>;
    const KeyRange keys = overlap(block, strip.seen.any);
    if (empty(keys)) return;
    const int64_t count = keys.end - keys.first;
    strip.seen.for_keys(keys, [&](const KeyRange& part, const KeyRange& lanes) {
      const int64_t rows = part.end - part.first, columns = lanes.end - lanes.first;
      tile_product<T>({k_.at(sequence, part.first, key_head), rows, plan_.channels, k_.time_step, 1},
                      {strip.columns + lanes.first, plan_.channels, columns, kLanes, 1},
                      {tile + (part.first - keys.first) * kLanes + lanes.first, rows, columns, kLanes, 1}, true);
    });
    if (!strip.seen.sees_all(keys)) hide(tile, keys, strip.seen, kMinusInfinity<T>);
    weigh(tile, count, strip.max, strip.sum, factor);
    if (dropout_) {
      dropout_.factors(sequence, key_head, strip.row, keys, kept);
      multiply(tile, kept, count * kLanes);
    }
    scale_rows(strip.sums, width_, factor);
    strip.seen.for_lanes(keys, [&](const KeyRange& part, const KeyRange& lanes) {
      const int64_t seen = part.end - part.first, rows = lanes.end - lanes.first;
      tile_product<T>({tile + (part.first - keys.first) * kLanes + lanes.first, rows, seen, 1, kLanes},
                      {values + (part.first - block.first) * width_, seen, width_, width_, 1},
                      {strip.sums + lanes.first * width_, rows, width_, width_, 1}, false);
    });
  }

  void finish(int64_t sequence, int64_t key_head, const Strip& strip) const {
    for (int64_t lane = 0; lane < std::min(kStrip<T>, plan_.rows - strip.row); ++lane) {
      const int64_t query = plan_.query(strip.row + lane), head = plan_.head(key_head, strip.row + lane);
      const BaseTwoPartial<T> all{strip.max[lane], strip.sum[lane], T(0)};
      const T factor = all.sum == 0 ? T(0) : 1 / all.sum;
      copy_scaled(strip.sums + lane * width_, plan_.value_channels, factor, output_.at(sequence, query, head));
      log_sums_[(sequence * plan_.heads + head) * plan_.queries + query] = all.log_sum() * std::numbers::ln2_v<T>;
    }
  }

  const AttentionPlan& plan_;
  const StripDropout<T> dropout_;
  const T scale_;
  const HeadRows<const T> q_, k_, v_;
  const HeadRows<T> output_;
  T* const log_sums_;
  const int64_t width_, strips_;
};

}  // namespace

void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
               const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp) {
  const AttentionPlan plan(q, k, v, first_key, end_key, spec.mask);
  if (plan.batch * plan.rows == 0) return;
  if (is_decode(plan)) return attention_decode(q, k, v, first_key, end_key, spec, output, log_sum_exp);
  dispatch_real("attention", q.dtype(), [&]<class T>() { Forward<T>(plan, spec, q, k, v, output, log_sum_exp).run(); });
}

}  // namespace monoid::cpu

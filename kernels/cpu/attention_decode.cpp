// Attention of a few rows, as in decoding: memory bound in keys and values, which are read once, straight from the
// cache, whatever the number of heads that share them; rows of one head are far apart there, so the next ones are asked
// for while some are worked on. The keys are cut into splits of a fixed size; each yields a
// softmax partial a row, and these are combined in order, so that a row is the same whatever else is in the batch.

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/attention_tiles.h"
#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/thin_gemm.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kSplit = 512;
constexpr int64_t kAhead = 32;  // keys worked on while as many are on their way

// Asks for some rows of a cache.
template <class T>
void prefetch(const HeadRows<const T>& cache, const T* rows, int64_t count, int64_t width) {
  if (cache.time_step < 2 * width) return;  // the processor finds neighbours itself
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; c += kTileColumns<T>) __builtin_prefetch(rows + i * cache.time_step + c, 0, 2);
  }
}

// Calls body(n, count, row n) for some of `keys` rows at a time, with the next ones on their way.
template <class T, class Body>
void walk(const HeadRows<const T>& cache, const T* rows, int64_t keys, int64_t width, Body body) {
  for (int64_t n = 0; n < keys; n += kAhead) {
    const int64_t some = std::min(kAhead, keys - n), next = std::min(kAhead, keys - n - some);
    const T* some_rows = rows + n * cache.time_step;
    prefetch(cache, some_rows + some * cache.time_step, next, width);
    body(n, some, some_rows);
  }
}

template <class T>
class Decode {
 public:
  Decode(const AttentionPlan& plan, const AttentionSpec& spec, const Tensor& q, const Tensor& k, const Tensor& v)
      : plan_(plan),
        dropout_(spec, plan),
        scale_(static_cast<T>(spec.scale * std::numbers::log2e)),
        q_(q),
        k_(k),
        v_(v),
        splits_((plan.keys + kSplit - 1) / kSplit),
        partials_(
            Tensor::empty({plan.batch * plan.key_heads, splits_, plan.rows, 2 + plan.value_channels}, dtype_of<T>)) {}

  void run(Tensor& output, Tensor& log_sum_exp) {
    parallel_for(plan_.batch * plan_.key_heads * splits_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) summarise(task / splits_, task % splits_);
    });
    const HeadRows<T> to(output);
    T* log_sums = log_sum_exp.data<T>();
    parallel_for(plan_.batch * plan_.key_heads * plan_.rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t both = i / plan_.rows, row = i % plan_.rows, sequence = both / plan_.key_heads;
        const int64_t query = plan_.query(row), head = plan_.head(both % plan_.key_heads, row);
        log_sums[(sequence * plan_.heads + head) * plan_.queries + query] =
            combine_splits(both, row, to.at(sequence, query, head)) * std::numbers::ln2_v<T>;
      }
    });
  }

 private:
  // {max, sum, outputs ...} of a row over a split.
  T* partial(int64_t both, int64_t split, int64_t row) {
    return partials_.data<T>() + ((both * splits_ + split) * plan_.rows + row) * (2 + plan_.value_channels);
  }

  void summarise(int64_t both, int64_t split) {
    const int64_t sequence = both / plan_.key_heads, key_head = both % plan_.key_heads;
    KeyRange keys{0, 0};
    for (int64_t query = 0; query < plan_.queries; ++query) keys = hull(keys, plan_.visible(sequence, query));
    keys = overlap(keys, {split * kSplit, (split + 1) * kSplit});
    for (int64_t row = 0; row < plan_.rows; ++row) {
      T* part = partial(both, split, row);
      part[0] = kMinusInfinity<T>;
      std::fill_n(part + 1, 1 + plan_.value_channels, T(0));
    }
    if (empty(keys)) return;
    const int64_t count = keys.end - keys.first;
    Scratch<T> scratch{plan_.rows * plan_.channels, plan_.rows * kSplit};
    T *queries = scratch.take(plan_.rows * plan_.channels), *scores = scratch.take(plan_.rows * kSplit);
    for (int64_t row = 0; row < plan_.rows; ++row) {
      const T* from = q_.at(sequence, plan_.query(row), plan_.head(key_head, row));
      for (int64_t c = 0; c < plan_.channels; ++c) queries[row * plan_.channels + c] = from[c] * scale_;
    }
    std::fill_n(scores, plan_.rows * kSplit, T(0));
    const T *k_rows = k_.at(sequence, keys.first, key_head), *v_rows = v_.at(sequence, keys.first, key_head);
    walk(k_, k_rows, count, plan_.channels, [&](int64_t n, int64_t some, const T* rows) {
      thin_gemm<T>(1, {queries, plan_.rows, plan_.channels, plan_.channels, 1},
                   {rows, plan_.channels, some, 1, k_.time_step}, {scores + n, plan_.rows, some, kSplit, 1});
    });
    prefetch(v_, v_rows, std::min(kAhead, count), plan_.value_channels);
    for (int64_t row = 0; row < plan_.rows; ++row) {
      T* of_row = scores + row * kSplit;
      const KeyRange seen = overlap(plan_.visible(sequence, plan_.query(row)), keys);
      for (int64_t n = keys.first; n < keys.end; ++n) {
        if (n < seen.first || n >= seen.end) of_row[n - keys.first] = kMinusInfinity<T>;
      }
      weigh(of_row, count, partial(both, split, row));
      if (!dropout_) continue;
      for (int64_t n = 0; n < count; ++n) of_row[n] *= dropout_.factor(sequence, key_head, row, keys.first + n);
    }
    walk(v_, v_rows, count, plan_.value_channels, [&](int64_t n, int64_t some, const T* rows) {
      thin_gemm<T>(1, {scores + n, plan_.rows, some, kSplit, 1}, {rows, some, plan_.value_channels, v_.time_step, 1},
                   {partial(both, split, 0) + 2, plan_.rows, plan_.value_channels, 2 + plan_.value_channels, 1});
    });
  }

  static void weigh(T* scores, int64_t count, T* max_and_sum) {
    vectorised([=] {
      const T greatest = row_max(scores, count), shift = greatest == kMinusInfinity<T> ? T(0) : greatest;
      max_and_sum[0] = greatest;
      max_and_sum[1] = sum_lanes<T>(
          count, [=](int64_t i) { return scores[i] = cpu::exp2(scores[i] == shift ? T(0) : scores[i] - shift); });
    });
  }

  // Writes the output and returns the log-sum-exp to the base 2.
  T combine_splits(int64_t both, int64_t row, T* to) {
    using Partial = BaseTwoPartial<T>;
    Partial all = Partial::identity();
    for (int64_t split = 0; split < splits_; ++split) {
      const T* part = partial(both, split, row);
      all = combine(all, Partial{part[0], part[1], T(0)});
    }
    std::fill_n(to, plan_.value_channels, T(0));
    if (all.sum == 0) return all.log_sum();
    for (int64_t split = 0; split < splits_; ++split) {
      const T* part = partial(both, split, row);
      if (part[1] == 0) continue;
      const T factor = Partial::weight(part[0], all.max) / all.sum;
      for (int64_t c = 0; c < plan_.value_channels; ++c) to[c] += factor * part[2 + c];
    }
    return all.log_sum();
  }

  const AttentionPlan& plan_;
  const StripDropout<T> dropout_;
  const T scale_;
  const HeadRows<const T> q_, k_, v_;
  const int64_t splits_;
  Tensor partials_;
};

}  // namespace

void attention_decode(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
                      const AttentionSpec& spec, Tensor& output, Tensor& log_sum_exp) {
  const AttentionPlan plan(q, k, v, first_key, end_key, spec.mask);
  dispatch_real("attention", q.dtype(), [&]<class T>() { Decode<T>(plan, spec, q, k, v).run(output, log_sum_exp); });
}

}  // namespace monoid::cpu

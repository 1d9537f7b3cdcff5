// The gradient of attention: scores and weights are made again, tile by tile, from the log-sum-exp of each row, and
// used up by four more products. A task owns a slice of the rows of one key head, and so their gradient; gradients of
// keys and values are sums over slices, which have a buffer each and are added in order. Floor: 6 channel + 4
// value_channel operations for each visible pair.

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/attention_tiles.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kKeys = 64;  // a block: two tiles of it lie in L1

// weights[key][lane] = exp2(score - log_sum[lane]), slopes = weight * (slope - delta[lane]). A score of 1e9 is made
// again with an error of hundreds: no weight is above 1, whatever its log-sum says.
template <class T>
void differentiate(T* weights, T* slopes, int64_t count, const T* log_sum, const T* delta) {
  constexpr int64_t kLanes = kStrip<T>;
  vectorised([=] {
    for (int64_t n = 0; n < count; ++n) {
#pragma GCC ivdep
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const T below = weights[n * kLanes + lane] - log_sum[lane], weight = cpu::exp2(below > 0 ? T(0) : below);
        weights[n * kLanes + lane] = weight;
        slopes[n * kLanes + lane] = weight * (slopes[n * kLanes + lane] - delta[lane]);
      }
    }
  });
}

template <class T>
struct Arguments {
  HeadRows<const T> q, k, v, output, output_cotangent;
  const T* log_sums;            // [batch, head, query]
  const T* log_sum_cotangents;  // or nullptr
  HeadRows<T> q_gradient, k_gradient, v_gradient;
};

template <class T>
class Backward {
 public:
  Backward(const AttentionPlan& plan, const AttentionSpec& spec, const Arguments<T>& arguments)
      : plan_(plan),
        dropout_(spec, plan),
        scale_(static_cast<T>(spec.scale)),
        to_(arguments),
        width_(padded<T>(plan.channels)),
        value_width_(padded<T>(plan.value_channels)),
        strips_(strips_of_task<T>(plan)),
        blocks_((plan.rows + strips_ * kStrip<T> - 1) / (strips_ * kStrip<T>)),
        slices_(count_slices()),
        sums_(Tensor::empty({plan.batch * plan.key_heads, slices_, plan.keys, width_ + value_width_}, dtype_of<T>)) {}

  void run() {
    parallel_for(plan_.batch * plan_.key_heads * slices_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) slice(i / slices_, i % slices_);
    });
    parallel_for(plan_.batch * plan_.key_heads * plan_.keys, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) add_slices(i / plan_.keys, i % plan_.keys);
    });
  }

 private:
  // Enough tasks for a machine of some cores, as long as the sums of slices stay small. From shapes alone.
  int64_t count_slices() const {
    constexpr int64_t kTasks = 16, kNumbers = 1 << 25;
    const int64_t heads = std::max<int64_t>(1, plan_.batch * plan_.key_heads);
    const int64_t numbers = std::max<int64_t>(1, heads * plan_.keys * (width_ + value_width_));
    return std::max<int64_t>(1, std::min({blocks_, kTasks / heads, kNumbers / numbers}));
  }

  struct Strip {
    StripKeys<T> seen;
    int64_t row;
    T *columns, *cotangent_columns;  // scaled queries, and cotangents, [channel][lane]
    T *queries, *cotangents;         // the same [lane][channel]
    T *gradient, *log_sum, *delta;
  };
  struct Tiles {
    T *keys, *values, *weights, *slopes, *kept;
  };

  // Gradients of the keys [key][channel] of a slice; those of the values follow.
  T* key_sums(int64_t both, int64_t slice) {
    return sums_.data<T>() + (both * slices_ + slice) * plan_.keys * (width_ + value_width_);
  }
  T* value_sums(int64_t both, int64_t slice) { return key_sums(both, slice) + plan_.keys * width_; }

  void slice(int64_t both, int64_t slice) {
    std::fill_n(key_sums(both, slice), plan_.keys * (width_ + value_width_), T(0));
    // Every slices_-th block, so that slices cost the same under a causal mask.
    for (int64_t block = slice; block < blocks_; block += slices_) {
      rows(both, block * strips_ * kStrip<T>, key_sums(both, slice), value_sums(both, slice));
    }
  }

  void rows(int64_t both, int64_t first_row, T* key_sums, T* value_sums) const {
    constexpr int64_t kLanes = kStrip<T>;
    const int64_t sequence = both / plan_.key_heads, key_head = both % plan_.key_heads;
    Scratch<T> scratch{strips_ * kLanes * (plan_.channels + plan_.value_channels + 2 * width_ + value_width_ + 2),
                       kKeys * (width_ + value_width_ + 3 * kLanes)};
    std::vector<Strip> strips;
    KeyRange seen{0, 0};
    for (int64_t row = first_row; row < std::min(plan_.rows, first_row + strips_ * kLanes); row += kLanes) {
      Strip strip{{plan_, sequence, row},
                  row,
                  scratch.take(plan_.channels * kLanes),
                  scratch.take(plan_.value_channels * kLanes),
                  scratch.take(width_ * kLanes),
                  scratch.take(value_width_ * kLanes),
                  scratch.take(width_ * kLanes),
                  scratch.take(kLanes),
                  scratch.take(kLanes)};
      begin(sequence, key_head, strip);
      seen = hull(seen, strip.seen.any);
      strips.push_back(strip);
    }
    const Tiles tiles{scratch.take(kKeys * width_), scratch.take(kKeys * value_width_), scratch.take(kKeys * kLanes),
                      scratch.take(kKeys * kLanes), scratch.take(kKeys * kLanes)};
    for (int64_t key = seen.first / kKeys * kKeys; key < seen.end; key += kKeys) {
      const KeyRange block = overlap({key, key + kKeys}, seen);
      copy_rows(to_.k.at(sequence, block.first, key_head), to_.k.time_step, block.end - block.first, plan_.channels,
                tiles.keys);
      for (const Strip& strip : strips) {
        add_block(sequence, key_head, block, strip, tiles, key_sums + block.first * width_,
                  value_sums + block.first * value_width_);
      }
    }
    if (!to_.q_gradient) return;
    for (const Strip& strip : strips) {
      for (int64_t lane = 0; lane < std::min(kLanes, plan_.rows - strip.row); ++lane) {
        copy_scaled(strip.gradient + lane * width_, plan_.channels, scale_,
                    at_row(to_.q_gradient, sequence, key_head, strip.row + lane));
      }
    }
  }

  template <class U>
  U* at_row(const HeadRows<U>& tensor, int64_t sequence, int64_t key_head, int64_t row) const {
    return row < plan_.rows ? tensor.at(sequence, plan_.query(row), plan_.head(key_head, row)) : nullptr;
  }

  void begin(int64_t sequence, int64_t key_head, const Strip& strip) const {
    constexpr int64_t kLanes = kStrip<T>;
    const auto q_row = [&](int64_t lane) { return at_row(to_.q, sequence, key_head, strip.row + lane); };
    const auto cotangent = [&](int64_t lane) {
      return to_.output_cotangent ? at_row(to_.output_cotangent, sequence, key_head, strip.row + lane) : nullptr;
    };
    transpose_strip<T>(q_row, plan_.channels, static_cast<T>(scale_ * std::numbers::log2e_v<T>), strip.columns);
    transpose_strip<T>(cotangent, plan_.value_channels, T(1), strip.cotangent_columns);
    std::fill_n(strip.queries, width_ * kLanes, T(0));
    std::fill_n(strip.cotangents, value_width_ * kLanes, T(0));
    std::fill_n(strip.gradient, width_ * kLanes, T(0));
    std::fill_n(strip.log_sum, kLanes, T(0));
    std::fill_n(strip.delta, kLanes, T(0));
    for (int64_t lane = 0; lane < std::min(kLanes, plan_.rows - strip.row); ++lane) {
      const int64_t row = strip.row + lane;
      const int64_t index = (sequence * plan_.heads + plan_.head(key_head, row)) * plan_.queries + plan_.query(row);
      copy_scaled(q_row(lane), plan_.channels, scale_, strip.queries + lane * width_);
      T delta = to_.log_sum_cotangents ? -to_.log_sum_cotangents[index] : T(0);
      if (const T* from = cotangent(lane)) {
        const T* output = at_row(to_.output, sequence, key_head, row);
        std::copy_n(from, plan_.value_channels, strip.cotangents + lane * value_width_);
        for (int64_t c = 0; c < plan_.value_channels; ++c) delta += from[c] * output[c];
      }
      strip.delta[lane] = delta;
      // A row without any weight: exp2(score - inf) is 0.
      const T log_sum = to_.log_sums[index] * std::numbers::log2e_v<T>;
      strip.log_sum[lane] = log_sum == kMinusInfinity<T> ? -kMinusInfinity<T> : log_sum;
    }
  }

  // key_sums and value_sums are those of block.first.
  void add_block(int64_t sequence, int64_t key_head, const KeyRange& block, const Strip& strip, const Tiles& tiles,
                 T* key_sums, T* value_sums) const {
    constexpr int64_t kLanes = kStrip<T>;
    const KeyRange keys = overlap(block, strip.seen.any);
    if (empty(keys)) return;
    const int64_t count = keys.end - keys.first;
    // Parts of a tile, and rows of what belongs to keys, from the first key of the tile or of the block.
    const auto part_of = [&](T* tile, const KeyRange& part, const KeyRange& lanes) -> Matrix<T> {
      return {tile + (part.first - keys.first) * kLanes + lanes.first, part.end - part.first, lanes.end - lanes.first,
              kLanes, 1};
    };
    const auto rows_of = [&](T* rows, const KeyRange& part, int64_t width) -> Matrix<T> {
      return {rows + (part.first - block.first) * width, part.end - part.first, width, width, 1};
    };
    strip.seen.for_keys(keys, [&](const KeyRange& part, const KeyRange& lanes) {
      const int64_t rows = part.end - part.first, columns = lanes.end - lanes.first;
      tile_product<T>({to_.k.at(sequence, part.first, key_head), rows, plan_.channels, to_.k.time_step, 1},
                      {strip.columns + lanes.first, plan_.channels, columns, kLanes, 1},
                      part_of(tiles.weights, part, lanes), true);
      tile_product<T>({to_.v.at(sequence, part.first, key_head), rows, plan_.value_channels, to_.v.time_step, 1},
                      {strip.cotangent_columns + lanes.first, plan_.value_channels, columns, kLanes, 1},
                      part_of(tiles.slopes, part, lanes), true);
    });
    if (!strip.seen.sees_all(keys)) {
      hide(tiles.weights, keys, strip.seen, kMinusInfinity<T>);
      hide(tiles.slopes, keys, strip.seen, T(0));
    }
    if (dropout_) {
      dropout_.factors(sequence, key_head, strip.row, keys, tiles.kept);
      multiply(tiles.slopes, tiles.kept, count * kLanes);
    }
    differentiate(tiles.weights, tiles.slopes, count, strip.log_sum, strip.delta);
    if (dropout_) multiply(tiles.weights, tiles.kept, count * kLanes);
    strip.seen.for_keys(keys, [&](const KeyRange& part, const KeyRange& lanes) {
      const int64_t rows = lanes.end - lanes.first;
      if (to_.v_gradient) {
        tile_product<T>(part_of(tiles.weights, part, lanes),
                        {strip.cotangents + lanes.first * value_width_, rows, value_width_, value_width_, 1},
                        rows_of(value_sums, part, value_width_), false);
      }
      if (to_.k_gradient) {
        tile_product<T>(part_of(tiles.slopes, part, lanes),
                        {strip.queries + lanes.first * width_, rows, width_, width_, 1},
                        rows_of(key_sums, part, width_), false);
      }
    });
    if (!to_.q_gradient) return;
    strip.seen.for_lanes(keys, [&](const KeyRange& part, const KeyRange& lanes) {
      tile_product<T>(part_of(tiles.slopes, part, lanes).transposed(), rows_of(tiles.keys, part, width_),
                      {strip.gradient + lanes.first * width_, lanes.end - lanes.first, width_, width_, 1}, false);
    });
  }

  void add_slices(int64_t both, int64_t key) {
    const int64_t sequence = both / plan_.key_heads, key_head = both % plan_.key_heads;
    const auto add = [&](const HeadRows<T>& gradient, int64_t channels, auto from) {
      if (!gradient) return;
      T* to = gradient.at(sequence, key, key_head);
      for (int64_t slice = 0; slice < slices_; ++slice) {
        const T* part = from(slice);
        for (int64_t c = 0; c < channels; ++c) to[c] = slice == 0 ? part[c] : to[c] + part[c];
      }
    };
    add(to_.k_gradient, plan_.channels, [&](int64_t slice) { return key_sums(both, slice) + key * width_; });
    add(to_.v_gradient, plan_.value_channels,
        [&](int64_t slice) { return value_sums(both, slice) + key * value_width_; });
  }

  const AttentionPlan& plan_;
  const StripDropout<T> dropout_;
  const T scale_;
  const Arguments<T> to_;
  const int64_t width_, value_width_, strips_, blocks_, slices_;
  Tensor sums_;
};

}  // namespace

void attention_gradient(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key,
                        const Tensor& end_key, const AttentionSpec& spec, const Tensor& output,
                        const Tensor& log_sum_exp, const Tensor& output_cotangent, const Tensor& log_sum_exp_cotangent,
                        Tensor& q_gradient, Tensor& k_gradient, Tensor& v_gradient) {
  const AttentionPlan plan(q, k, v, first_key, end_key, spec.mask);
  dispatch_real("attention_gradient", q.dtype(), [&]<class T>() {
    const Arguments<T> arguments{HeadRows<const T>(q),
                                 HeadRows<const T>(k),
                                 HeadRows<const T>(v),
                                 HeadRows<const T>(output),
                                 HeadRows<const T>(output_cotangent),
                                 log_sum_exp.data<T>(),
                                 log_sum_exp_cotangent.defined() ? log_sum_exp_cotangent.data<T>() : nullptr,
                                 HeadRows<T>(q_gradient),
                                 HeadRows<T>(k_gradient),
                                 HeadRows<T>(v_gradient)};
    Backward<T>(plan, spec, arguments).run();
  });
}

}  // namespace monoid::cpu

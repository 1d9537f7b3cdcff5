#pragma once

#include <array>
#include <cmath>
#include <numbers>

#include "monoid/core/random.h"
#include "monoid/core/tensor.h"
#include "monoid/kernels/attention.h"
#include "monoid/kernels/cpu/lanes.h"
#include "monoid/kernels/cpu/tile_product.h"
#include "monoid/kernels/cpu/vector_math.h"
#include "monoid/kernels/monoid.h"

// What the directions of attention share. The rows of one key head are its queries times its group of heads, query by
// query; kStrip of them lie side by side in the lanes of a tile of scores [key, row], so that a softmax over keys is
// vertical arithmetic and neither keys nor values are transposed. Scores are to the base 2.

namespace monoid::cpu {

template <class T>
inline constexpr int64_t kStrip = 256 / static_cast<int64_t>(sizeof(T));

template <class T>
inline constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

struct BaseTwoMath {
  template <class T>
  static T exp(T x) {
    return cpu::exp2(x);
  }
  template <class T>
  static T log(T x) {
    return std::log2(x);
  }
};
template <class T>
using BaseTwoPartial = SoftmaxPartial<T, BaseTwoMath>;

/// `count` rounded up to whole rows of a tile.
template <class T>
constexpr int64_t padded(int64_t count) {
  return (count + kTileColumns<T> - 1) / kTileColumns<T> * kTileColumns<T>;
}

/// [batch, time, head, channel] with adjacent channels; an undefined tensor has no rows.
template <class T>
struct HeadRows {
  template <class Base>
  explicit HeadRows(Base& x) {
    if (!x.defined()) return;
    data = x.template data<std::remove_const_t<T>>();
    batch_step = x.strides()[0];
    time_step = x.strides()[1];
    head_step = x.strides()[2];
  }
  explicit operator bool() const { return data; }
  T* at(int64_t sequence, int64_t time, int64_t head) const {
    return data + sequence * batch_step + time * time_step + head * head_step;
  }

  T* data = nullptr;
  int64_t batch_step = 0, time_step = 0, head_step = 0;
};

/// Extents, and who sees what.
class AttentionPlan {
 public:
  AttentionPlan(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key, const Tensor& end_key,
                const AttentionMask& mask)
      : batch(q.size(0)),
        queries(q.size(1)),
        heads(q.size(2)),
        channels(q.size(3)),
        keys(k.size(1)),
        key_heads(k.size(2)),
        value_channels(v.size(3)),
        group(key_heads == 0 ? 0 : heads / key_heads),
        rows(queries * group),
        mask_(mask),
        first_(first_key.defined() ? first_key.data<int32_t>() : nullptr),
        end_(end_key.defined() ? end_key.data<int32_t>() : nullptr) {}

  /// The keys that one query sees; {0, 0} if none.
  KeyRange visible(int64_t sequence, int64_t query) const {
    const int64_t end = end_ ? std::clamp<int64_t>(end_[sequence], 0, keys) : keys;
    KeyRange range = mask_.range(end - queries + query, end);
    if (first_) range.first = std::max<int64_t>(range.first, first_[sequence]);
    return range.first < range.end ? range : KeyRange{0, 0};
  }
  int64_t query(int64_t row) const { return row / group; }
  int64_t head(int64_t key_head, int64_t row) const { return key_head * group + row % group; }

  const int64_t batch, queries, heads, channels, keys, key_heads, value_channels, group, rows;

 private:
  AttentionMask mask_;
  const int32_t *first_, *end_;
};

inline bool empty(const KeyRange& range) { return range.first >= range.end; }
/// The smallest stretch that holds both; an empty one holds nothing.
inline KeyRange hull(const KeyRange& a, const KeyRange& b) {
  if (empty(a)) return b;
  if (empty(b)) return a;
  return {std::min(a.first, b.first), std::max(a.end, b.end)};
}
inline KeyRange overlap(const KeyRange& a, const KeyRange& b) {
  return {std::max(a.first, b.first), std::min(a.end, b.end)};
}

/// The keys that the rows of a strip see; lanes past the last row do as that row does, and nobody reads them.
template <class T>
struct StripKeys {
  StripKeys(const AttentionPlan& plan, int64_t sequence, int64_t row) {
    for (int64_t lane = 0; lane < kStrip<T>; ++lane) {
      const KeyRange seen = plan.visible(sequence, plan.query(std::min(row + lane, plan.rows - 1)));
      first[static_cast<size_t>(lane)] = static_cast<int32_t>(seen.first);
      end[static_cast<size_t>(lane)] = static_cast<int32_t>(seen.end);
      any = hull(any, seen);
      all = overlap(all, seen);
    }
  }
  /// Calls body(keys, lanes) for the whole tile, or, along the edge of the mask, for a few keys at a time with the
  /// lanes that see any of them, in whole rows of a tile.
  template <class Body>
  void for_keys(const KeyRange& keys, Body body) const {
    constexpr int64_t kSome = 24;
    if (sees_all(keys)) return body(keys, KeyRange{0, kStrip<T>});
    for (int64_t key = keys.first; key < keys.end; key += kSome) {
      const KeyRange part{key, std::min(key + kSome, keys.end)};
      KeyRange lanes{0, 0};
      for (int64_t lane = 0; lane < kStrip<T>; lane += kTileColumns<T>) {
        if (!empty(any_of(lane, kTileColumns<T>, part))) lanes = hull(lanes, {lane, lane + kTileColumns<T>});
      }
      if (!empty(lanes)) body(part, lanes);
    }
  }
  /// The same for a few lanes at a time with the keys that any of them sees.
  template <class Body>
  void for_lanes(const KeyRange& keys, Body body) const {
    constexpr int64_t kSome = 12;
    if (sees_all(keys)) return body(keys, KeyRange{0, kStrip<T>});
    for (int64_t lane = 0; lane < kStrip<T>; lane += kSome) {
      const int64_t count = std::min(kSome, kStrip<T> - lane);
      const KeyRange part = any_of(lane, count, keys);
      if (!empty(part)) body(part, KeyRange{lane, lane + count});
    }
  }
  bool sees_all(const KeyRange& keys) const { return all.first <= keys.first && keys.end <= all.end; }

  std::array<int32_t, static_cast<size_t>(kStrip<T>)> first, end;
  KeyRange any{0, 0}, all{0, std::numeric_limits<int64_t>::max()};

 private:
  // What lanes [lane, lane + count) see of `keys`.
  KeyRange any_of(int64_t lane, int64_t count, const KeyRange& keys) const {
    KeyRange seen{0, 0};
    for (int64_t i = lane; i < lane + count; ++i)
      seen = hull(seen, {first[static_cast<size_t>(i)], end[static_cast<size_t>(i)]});
    return overlap(seen, keys);
  }
};

/// tile[key][lane] = value where the lane does not see the key; row 0 of the tile is keys.first.
template <class T>
void hide(T* tile, const KeyRange& keys, const StripKeys<T>& seen, T value) {
  vectorised([=, first = seen.first.data(), end = seen.end.data()] {
    const T hidden = value;  // a local, which no store to the tile can change
    for (int64_t n = keys.first; n < keys.end; ++n) {
      T* row = tile + (n - keys.first) * kStrip<T>;
      const auto key = static_cast<int32_t>(n);
#pragma GCC ivdep
      for (int64_t lane = 0; lane < kStrip<T>; ++lane) {
        const T score = row[lane];
        const bool visible = static_cast<int>(key >= first[lane]) & static_cast<int>(key < end[lane]);
        row[lane] = visible ? score : hidden;
      }
    }
  });
}

/// Factors 0 (lost) or 1 / (1 - probability) of the weights of a strip.
template <class T>
class StripDropout {
 public:
  StripDropout(const AttentionSpec& spec, const AttentionPlan& plan)
      : plan_(plan),
        seed_(spec.seed),
        first_(spec.first + (spec.base.defined() ? static_cast<uint64_t>(*spec.base.data<int64_t>()) : 0)),
        lowest_kept_(static_cast<int32_t>(std::ceil(spec.dropout * 0x1p24))),
        scale_(static_cast<T>(1 / (1 - spec.dropout))) {}

  explicit operator bool() const { return lowest_kept_ > 0; }

  /// factors[key][lane] for the strip whose first row is `row`.
  void factors(int64_t sequence, int64_t key_head, int64_t row, const KeyRange& keys, T* factors) const {
    uint64_t counters[kStrip<T>];
    for (int64_t lane = 0; lane < kStrip<T>; ++lane) {
      counters[lane] = row_start(sequence, key_head, std::min(row + lane, plan_.rows - 1)) / 4;
    }
    vectorised([=, seed = seed_, lowest_kept = lowest_kept_, scale = scale_, from = counters] {
      for (int64_t four = keys.first / 4; four * 4 < keys.end; ++four) {
        int32_t words[4][kStrip<T>];
#pragma GCC ivdep
        for (int64_t lane = 0; lane < kStrip<T>; ++lane) {
          const auto [w0, w1, w2, w3] = philox(seed, from[lane] + static_cast<uint64_t>(four));
          words[0][lane] = static_cast<int32_t>(w0 >> 8);
          words[1][lane] = static_cast<int32_t>(w1 >> 8);
          words[2][lane] = static_cast<int32_t>(w2 >> 8);
          words[3][lane] = static_cast<int32_t>(w3 >> 8);
        }
        for (int64_t n = std::max(keys.first, four * 4); n < std::min(keys.end, four * 4 + 4); ++n) {
          T* out = factors + (n - keys.first) * kStrip<T>;
          for (int64_t lane = 0; lane < kStrip<T>; ++lane) {
            out[lane] = words[n - four * 4][lane] >= lowest_kept ? scale : T(0);
          }
        }
      }
    });
  }

  /// The factor of one weight.
  T factor(int64_t sequence, int64_t key_head, int64_t row, int64_t key) const {
    const uint32_t bits = random_bits(seed_, row_start(sequence, key_head, row) + static_cast<uint64_t>(key));
    return static_cast<int32_t>(bits >> 8) >= lowest_kept_ ? scale_ : T(0);
  }

 private:
  uint64_t row_start(int64_t sequence, int64_t key_head, int64_t row) const {
    return AttentionSpec::dropout_row(first_, sequence * plan_.heads + plan_.head(key_head, row), plan_.query(row),
                                      plan_.queries, plan_.keys);
  }

  const AttentionPlan& plan_;
  uint64_t seed_, first_;
  int32_t lowest_kept_;
  T scale_;
};

/// x *= y.
template <class T>
void multiply(T* x, const T* y, int64_t count) {
  vectorised([=] {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) x[i] *= y[i];
  });
}

/// to = factor * from.
template <class T>
void copy_scaled(const T* from, int64_t count, T factor, T* to) {
  vectorised([=] {
    const T scale = factor;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) to[i] = from[i] * scale;
  });
}

/// Copies `count` rows of `width` numbers to rows of padded(width), with zeros behind.
template <class T>
void copy_rows(const T* from, int64_t step, int64_t count, int64_t width, T* to) {
  const int64_t whole = padded<T>(width);
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(from + i * step, width, to + i * whole);
    std::fill(to + i * whole + width, to + (i + 1) * whole, T(0));
  }
}

/// columns[channel][lane] = factor * row(lane)[channel], 0 in the lanes without a row (nullptr).
template <class T, class Row>
void transpose_strip(Row row, int64_t channels, T factor, T* columns) {
  with_lanes<T>([&]<class L>() {
    for (int64_t lane = 0; lane < kStrip<T>; lane += L::kCount) {
      const T* from[L::kCount];
      for (int i = 0; i < L::kCount; ++i) from[i] = row(lane + i);
      int64_t c = 0;
      for (; c + L::kCount <= channels; c += L::kCount) {
        typename L::Vector block[L::kCount];
        unrolled<L::kCount>([&](auto i) {
          block[i] = typename L::Vector{};
          if (from[i]) L::load(block[i], from[i] + c);
        });
        L::transpose(block);
        unrolled<L::kCount>([&](auto i) {
          block[i] *= factor;
          L::store(block[i], columns + (c + i) * kStrip<T> + lane);
        });
      }
      for (; c < channels; ++c) {
        for (int i = 0; i < L::kCount; ++i) columns[c * kStrip<T> + lane + i] = from[i] ? factor * from[i][c] : T(0);
      }
    }
  });
}

/// Consecutive pieces of one block of memory, each on a cache line.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::initializer_list<int64_t> sizes) : storage_(total(sizes), kCpu) {}
  T* take(int64_t count) {
    T* piece = static_cast<T*>(storage_.data()) + used_;
    used_ += padded<T>(count);
    return piece;
  }

 private:
  static size_t total(std::initializer_list<int64_t> sizes) {
    int64_t count = 0;
    for (const int64_t size : sizes) count += padded<T>(size);
    return static_cast<size_t>(count) * sizeof(T);
  }

  Storage storage_;
  int64_t used_ = 0;
};

/// Strips a task takes, so that the blocks of keys it copies serve several, while small problems still make enough
/// tasks. A function of the shapes alone.
template <class T>
int64_t strips_of_task(const AttentionPlan& plan) {
  constexpr int64_t kMost = 4, kTasks = 32;
  const int64_t strips = (plan.rows + kStrip<T> - 1) / kStrip<T>;
  return std::clamp(strips * plan.batch * plan.key_heads / kTasks, int64_t{1}, kMost);
}

/// Few rows over the keys: memory bound, see attention_decode.cpp.
Attention attention_decode;
inline bool is_decode(const AttentionPlan& plan) { return plan.rows <= 8; }

}  // namespace monoid::cpu

#pragma once

#include <cstdint>
#include <limits>

namespace monoid::cpu {

// Reductions of a row that vectorise without reassociation flags: term i goes to lane i % lanes, the lanes end in a
// fixed tree. The order of the additions depends on the length alone, never on threads or vector width. Call them
// inside vectorised(): the lanes are four AVX-512 registers there, enough to hide the latency of an addition.

template <class T>
inline constexpr int64_t kReduceLanes = 256 / static_cast<int64_t>(sizeof(T));

namespace detail {
// The tree, with extents known at compile time so that every level is one or two instructions.
template <int64_t kHalf, class T, class Combine>
inline void fold_halves(T* lanes, Combine combine) {
  for (int64_t lane = 0; lane < kHalf; ++lane) lanes[lane] = combine(lanes[lane], lanes[lane + kHalf]);
  if constexpr (kHalf > 1) fold_halves<kHalf / 2>(lanes, combine);
}
}  // namespace detail

/// combine over term(0), ..., term(count - 1), started from `identity` in every lane. Terms are inline and
/// branch-free, as for any vectorised loop, and may store what they compute: y[i] = exp(x[i] - shift).
template <int64_t kLanes, class T, class Term, class Combine>
inline T reduce_in_lanes(int64_t count, T identity, Term term, Combine combine) {
  T lanes[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = identity;
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = combine(lanes[lane], term(i + lane));
  }
  for (int64_t lane = 0; lane < count - whole; ++lane) lanes[lane] = combine(lanes[lane], term(whole + lane));
  detail::fold_halves<kLanes / 2>(lanes, combine);
  return lanes[0];
}

template <class T, class Term, class Combine>
inline T reduce_lanes(int64_t count, T identity, Term term, Combine combine) {
  return reduce_in_lanes<kReduceLanes<T>>(count, identity, term, combine);
}

/// Sum of term(i), accumulated in T.
template <class T, class Term>
inline T sum_lanes(int64_t count, Term term) {
  return reduce_lanes(count, T(0), term, [](T a, T b) { return a + b; });
}

/// Greatest term(i), -infinity of none. One maxps a vector; a NaN may be passed over.
template <class T, class Term>
inline T max_lanes(int64_t count, Term term) {
  return reduce_lanes(count, -std::numeric_limits<T>::infinity(), term, [](T a, T b) { return a > b ? a : b; });
}

template <class T>
inline T row_sum(const T* x, int64_t count) {
  return sum_lanes<T>(count, [=](int64_t i) { return x[i]; });
}

template <class T>
inline T row_max(const T* x, int64_t count) {
  return max_lanes<T>(count, [=](int64_t i) { return x[i]; });
}

template <class T>
inline T row_dot(const T* x, const T* y, int64_t count) {
  return sum_lanes<T>(count, [=](int64_t i) { return x[i] * y[i]; });
}

}  // namespace monoid::cpu

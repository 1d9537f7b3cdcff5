#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {

/// A vector register's worth of T, for loops that must keep blocks of sums in registers, which the compiler's own
/// vectoriser does not promise. Use it inside `vectorised`, which with_lanes does.
template <class T, int kBytes>
struct Lanes {
  using Vector [[gnu::vector_size(kBytes)]] = T;
  static constexpr int kCount = kBytes / static_cast<int>(sizeof(T));

  static void load(Vector& v, const T* from) { std::memcpy(&v, from, sizeof v); }
  static void store(const Vector& v, T* to) { std::memcpy(to, &v, sizeof v); }
  /// The first `count` lanes; the others become 0.
  static void load(Vector& v, const T* from, int64_t count) {
    T lanes[kCount] = {};
    std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(T));
    load(v, lanes);
  }
  static void store(const Vector& v, T* to, int64_t count) {
    T lanes[kCount];
    store(v, lanes);
    std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof(T));
  }

  /// Halves the groups of kWidth lanes that a and b consist of, those of a first: lane sums in log2 steps, for four
  /// vectors at the price of two.
  template <int kWidth>
  static void fold(const Vector& a, const Vector& b, Vector& result) {
    const auto halves = [&]<int... kLanes>(std::integer_sequence<int, kLanes...>) {
      result = __builtin_shufflevector(a, b, (kLanes / (kWidth / 2) * kWidth + kLanes % (kWidth / 2))...) +
               __builtin_shufflevector(a, b, (kLanes / (kWidth / 2) * kWidth + kLanes % (kWidth / 2) + kWidth / 2)...);
    };
    halves(std::make_integer_sequence<int, kCount>{});
  }
  /// Lane j of the result, j < 4, is the sum of the lanes of v[j].
  static void sum(const Vector (&v)[4], Vector& result) {
    Vector low, high;
    fold<kCount>(v[0], v[1], low);
    fold<kCount>(v[2], v[3], high);
    fold<kCount / 2>(low, high, result);
    if constexpr (kCount / 4 >= 4) fold<4>(result, result, result);
    if constexpr (kCount / 4 >= 2) fold<2>(result, result, result);
  }

  /// Lane i of v[j] and lane j of v[i] change places: blocks of half the size swap in each of log2 rounds.
  template <int kBlock = kCount / 2>
  static void transpose(Vector (&v)[kCount]) {
    const auto swap = [&]<int... kLanes>(std::integer_sequence<int, kLanes...>) {
      const auto pair = [](Vector& a, Vector& b) {
        const Vector low = __builtin_shufflevector(a, b, (kLanes & kBlock ? kCount + kLanes - kBlock : kLanes)...);
        b = __builtin_shufflevector(a, b, (kLanes & kBlock ? kCount + kLanes : kLanes + kBlock)...);
        a = low;
      };
      ((kLanes & kBlock ? void() : pair(v[kLanes], v[(kLanes + kBlock) % kCount])), ...);
    };
    swap(std::make_integer_sequence<int, kCount>{});
    if constexpr (kBlock > 1) transpose<kBlock / 2>(v);
  }
};

/// body(0), ..., body(kCount - 1) with constants: arrays of vectors stay in registers only if every index is one.
template <int kCount, class Body>
void unrolled(Body body) {
  [&]<int... kIndices>(std::integer_sequence<int, kIndices...>) {
    (body(std::integral_constant<int, kIndices>{}), ...);
  }
  (std::make_integer_sequence<int, kCount>{});
}

/// Runs body.template operator()<Lanes<T, bytes>>() compiled for this CPU, in its widest registers.
template <class T, class Body>
void with_lanes(Body&& body) {
  if (isa() == Isa::avx512) {
    const auto wide = [&] { body.template operator()<Lanes<T, 64>>(); };
    detail::run_avx512(wide);
  } else {
    const auto narrow = [&] { body.template operator()<Lanes<T, 32>>(); };
    isa() == Isa::avx2 ? detail::run_avx2(narrow) : narrow();
  }
}

}  // namespace monoid::cpu

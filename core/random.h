#pragma once

#include <array>
#include <cstdint>

#include "monoid/core/tensor.h"

namespace monoid {

/// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): four random 32-bit words from
/// a counter and a key. Stateless, so that any thread of any device can compute any number of the stream.
/// Rounds are recursion, not a loop, so that a loop over counters vectorises.
template <int kRounds = 10>
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  const auto [c0, c1, c2, c3] = counter;
  const auto [k0, k1] = key;
  const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
  const std::array<uint32_t, 4> next{static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, static_cast<uint32_t>(p1),
                                     static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1, static_cast<uint32_t>(p0)};
  if constexpr (kRounds == 1) {
    return next;
  } else {
    return philox<kRounds - 1>(next, {k0 + 0x9E3779B9u, k1 + 0xBB67AE85u});
  }
}

/// The same from 64-bit halves: the words of block `counter` of the stream `key`.
constexpr std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter) {
  return philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
}

/// Number `index` of a stream, as 32 random bits.
constexpr uint32_t random_bits(uint64_t seed, uint64_t index) { return philox(seed, index / 4)[index % 4]; }

/// A uniform number in [0, 1) with 24 random bits: the same on every device.
constexpr float uniform_unit(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

/// A position in a Philox stream. Two numbers describe it, so it is saved and restored exactly.
class Generator {
 public:
  explicit Generator(uint64_t seed, uint64_t offset = 0) : seed_(seed), offset_(offset) {}

  uint64_t seed() const { return seed_; }
  uint64_t offset() const { return offset_; }
  void set_offset(uint64_t offset) { offset_ = offset; }

  /// Makes places count from a number on a device (i64 []) that is read when they are used, so that a captured graph
  /// draws new numbers at each replay. `offset` and `reserve` then count from that base. Undefined: from zero.
  void set_base(const Tensor& base) { base_ = base; }
  const Tensor& base() const { return base_; }

  /// Takes `count` numbers off the stream and returns the index of the first; always a multiple of four.
  uint64_t reserve(int64_t count);
  /// One uniform number in [0, 1), with 53 bits.
  double uniform();
  /// One uniform integer in [0, bound); bound >= 1.
  int64_t below(int64_t bound);

 private:
  uint64_t seed_;
  uint64_t offset_;
  Tensor base_;
};

/// Tensors of random f32 or f64 numbers: uniform in [low, high), and Gaussian (Box-Muller).
Tensor random_uniform(const Shape& shape, Generator& generator, double low = 0, double high = 1,
                      DType dtype = DType::f32);
Tensor random_normal(const Shape& shape, Generator& generator, double mean = 0, double deviation = 1,
                     DType dtype = DType::f32);
/// Uniform i64 integers in [0, bound).
Tensor random_integers(const Shape& shape, Generator& generator, int64_t bound);

}  // namespace monoid

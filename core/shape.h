#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string_view>
#include <vector>

#include "monoid/core/error.h"

namespace monoid {

/// Up to eight extents, stored inline: a tensor's shape, or its strides in elements.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const int64_t> extents);
  explicit Shape(const std::vector<int64_t>& extents) : Shape(std::span<const int64_t>(extents)) {}

  int rank() const { return rank_; }
  bool empty() const { return rank_ == 0; }

  /// Extent of an axis; negative axes count from the end. Unchecked forms are for kernels: begin()[i].
  int64_t operator[](int axis) const { return extents_[static_cast<size_t>(resolve(axis))]; }
  int64_t& operator[](int axis) { return extents_[static_cast<size_t>(resolve(axis))]; }
  int64_t back() const { return (*this)[-1]; }

  /// Product of all extents; 1 for rank 0.
  int64_t elements() const;

  void push_back(int64_t extent);
  /// This shape without one axis, or with an extent put before position `axis`.
  Shape without(int axis) const;
  Shape with(int axis, int64_t extent) const;
  Shape inserted(int axis, int64_t extent) const;

  /// The axis as 0..rank-1; out of range is an Error that names it.
  int resolve(int axis) const;

  const int64_t* begin() const { return extents_.data(); }
  const int64_t* end() const { return extents_.data() + rank_; }
  friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::array<int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

using Strides = Shape;

/// Row-major strides of a contiguous tensor.
Strides contiguous_strides(const Shape& shape);

/// The shape two operands broadcast to (numpy rules); an Error naming `op` and both shapes if they do not.
Shape broadcast_shapes(std::string_view op, const Shape& a, const Shape& b);

std::ostream& operator<<(std::ostream& stream, const Shape& shape);

}  // namespace monoid

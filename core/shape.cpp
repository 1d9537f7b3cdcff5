#include "monoid/core/shape.h"

#include <algorithm>
#include <ostream>

namespace monoid {

Shape::Shape(std::span<const int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  check(extents.size() <= static_cast<size_t>(kMaxRank), "shape: rank ", extents.size(), " is over the limit of ",
        kMaxRank);
  std::copy(extents.begin(), extents.end(), extents_.begin());
}

int64_t Shape::elements() const {
  int64_t product = 1;
  bool overflows = false;
  for (int64_t extent : *this) overflows |= __builtin_mul_overflow(product, extent, &product);
  check(!overflows, "shape: ", *this, " has more elements than 64 bits count");
  return product;
}

int Shape::resolve(int axis) const {
  const int resolved = axis < 0 ? axis + rank_ : axis;
  check(resolved >= 0 && resolved < rank_, "shape: axis ", axis, " is out of range for ", *this, " of rank ", rank_);
  return resolved;
}

void Shape::push_back(int64_t extent) {
  check(rank_ < kMaxRank, "shape: ", *this, " already has the maximum rank ", kMaxRank);
  extents_[static_cast<size_t>(rank_++)] = extent;
}

Shape Shape::without(int axis) const {
  axis = resolve(axis);
  Shape result;
  for (int i = 0; i < rank_; ++i) {
    if (i != axis) result.push_back((*this)[i]);
  }
  return result;
}

Shape Shape::with(int axis, int64_t extent) const {
  Shape result = *this;
  result[axis] = extent;
  return result;
}

Shape Shape::inserted(int axis, int64_t extent) const {
  if (axis < 0) axis += rank_ + 1;
  check(axis >= 0 && axis <= rank_, "shape: cannot insert an axis at ", axis, " into ", *this);
  Shape result;
  for (int i = 0; i <= rank_; ++i) {
    if (i == axis) result.push_back(extent);
    if (i < rank_) result.push_back((*this)[i]);
  }
  return result;
}

bool operator==(const Shape& a, const Shape& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

Strides contiguous_strides(const Shape& shape) {
  Strides strides = shape;
  int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = step;
    const bool overflows = __builtin_mul_overflow(step, std::max<int64_t>(shape[axis], 1), &step);
    check(!overflows, "shape: the strides of ", shape, " do not fit 64 bits");
  }
  return strides;
}

Shape broadcast_shapes(std::string_view op, const Shape& a, const Shape& b) {
  Shape result = a.rank() >= b.rank() ? a : b;
  for (int i = 1; i <= std::min(a.rank(), b.rank()); ++i) {
    check(a[-i] == b[-i] || a[-i] == 1 || b[-i] == 1, op, ": shapes ", a, " and ", b,
          " do not broadcast; each pair of trailing extents must be equal or 1");
    result[-i] = a[-i] == 1 ? b[-i] : a[-i];
  }
  return result;
}

std::ostream& operator<<(std::ostream& stream, const Shape& shape) {
  stream << '[';
  for (int i = 0; i < shape.rank(); ++i) stream << (i ? ", " : "") << shape[i];
  return stream << ']';
}

}  // namespace monoid

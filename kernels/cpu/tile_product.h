#pragma once

#include "monoid/kernels/product.h"

namespace monoid::cpu {

/// Columns of a tile come in whole registers of any instruction set: multiples of 64 bytes.
template <class T>
inline constexpr int64_t kTileColumns = 64 / static_cast<int64_t>(sizeof(T));

/// c += a b on the calling thread for operands that fit in the caches, without packing them. a takes any steps; rows of
/// b and c are contiguous and whole, c.columns a multiple of kTileColumns. With `clear`, c = a b. T is float or double.
template <class T>
void tile_product(const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c, bool clear);

}  // namespace monoid::cpu

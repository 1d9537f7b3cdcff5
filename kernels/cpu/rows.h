#pragma once

#include <algorithm>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/strided.h"

namespace monoid::cpu {

// Kernels over the last axis see a tensor [..., length] as rows: contiguous inside, any strides between them, so that
// a slice of a packed projection needs no copy.

inline int64_t row_length(const Tensor& x) { return x.shape().back(); }
inline int64_t row_count(const Tensor& x) { return x.shape().without(-1).elements(); }

/// Where each row of a tensor starts, in elements.
class RowOffsets {
 public:
  explicit RowOffsets(const Tensor& x) : leading_(x.shape().without(-1), {x.strides().without(-1)}) {}

  int64_t operator()(int64_t row) const {
    const int64_t length = leading_.row_length();
    return leading_.row_offsets(row / length)[0] + row % length * leading_.row_steps()[0];
  }

 private:
  StridedRows<1> leading_;
};

/// Calls body(row) for `count` rows, vectorised, several short rows or one long row a task. `cost` is the number of
/// elements a row stands for.
template <class Body>
void for_rows(int64_t count, int64_t cost, Body body) {
  constexpr int64_t kElements = 1 << 14;
  parallel_for(count, std::max<int64_t>(1, kElements / std::max<int64_t>(cost, 1)), [&](int64_t begin, int64_t end) {
    vectorised([&] {
      for (int64_t row = begin; row < end; ++row) body(row);
    });
  });
}

}  // namespace monoid::cpu

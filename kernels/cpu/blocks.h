#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <tuple>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/strided.h"

namespace monoid::cpu {

// Elementwise kernels see every operand as runs of consecutive elements, whatever its strides. A run that is
// contiguous in memory is read in place; short rows, broadcast and strided ones are packed into a buffer that stays
// in the first-level cache, so that one vectorised loop a function serves every layout.

constexpr int64_t kBlockElements = 512;   // of a packed operand
constexpr int64_t kBlockGrain = 1 << 14;  // elements a task
constexpr int64_t kShortestRun = 128;     // rows this long are worth a block of their own

/// Reads a tensor, broadcast to `shape`, in row-major order.
template <class T>
class BlockReader {
 public:
  BlockReader(const Tensor& tensor, const Shape& shape)
      : data_(tensor.data<T>()), rows_(shape, {broadcast_strides(tensor, shape)}) {}

  /// How many of the `count` elements at `begin` to read at once.
  int64_t advisable(int64_t begin, int64_t count) const {
    const int64_t length = rows_.row_length();
    if (step() == 1) {
      if (rows_.rows() == 1) return count;
      const int64_t run = length - begin % length;
      if (run >= kShortestRun) return std::min(count, run);
    }
    return std::min(count, kBlockElements);
  }

  /// Elements [begin, begin + count): in place or, up to kBlockElements of them, in `buffer`.
  const T* read(int64_t begin, int64_t count, T* buffer) const {
    const int64_t length = rows_.row_length();
    int64_t row = begin / length, column = begin % length;
    if (step() == 1 && column + count <= length) return data_ + rows_.row_offsets(row)[0] + column;
    for (int64_t packed = 0; packed < count; ++row, column = 0) {
      const int64_t run = std::min(count - packed, length - column);
      const T* from = data_ + rows_.row_offsets(row)[0] + column * step();
      T* to = buffer + packed;
      if (step() == 1) {
        std::copy_n(from, run, to);
      } else if (step() == 0) {
        std::fill_n(to, run, *from);
      } else {
        for (int64_t i = 0; i < run; ++i) to[i] = from[i * step()];
      }
      packed += run;
    }
    return buffer;
  }

 private:
  int64_t step() const { return rows_.row_steps()[0]; }

  const T* data_;
  StridedRows<1> rows_;
};

template <class T>
struct alignas(64) BlockBuffer {
  T elements[kBlockElements];
};

/// body(begin, count, pointers...) over the elements of `shape`, in parallel; the pointers are the operands' elements
/// begin, ..., begin + count - 1. Blocks do not depend on the number of threads.
template <class Body, class... T>
void for_each_block(const Shape& shape, const Body& body, const BlockReader<T>&... operands) {
  parallel_for(shape.elements(), kBlockGrain, [&](int64_t begin, int64_t end) {
    std::tuple<BlockBuffer<T>...> buffers;
    while (begin < end) {
      int64_t count = end - begin;
      ((count = operands.advisable(begin, count)), ...);
      std::apply([&](auto&... buffer) { body(begin, count, operands.read(begin, count, buffer.elements)...); },
                 buffers);
      begin += count;
    }
  });
}

}  // namespace monoid::cpu

#pragma once

#include "monoid/core/kernel.h"
#include "monoid/kernels/host_device.h"

namespace monoid {

/// Which channels make a pair: 2i and 2i + 1, or i and i + rotated / 2 ("rotate_half").
enum class RotaryPairs { interleaved, halves };

/// The row of the table for each [sequence, time step]: `offset` + time, unless tensors on the device say otherwise.
/// They are read when the kernel runs, so that a graph may be replayed at other positions.
struct RotaryPositions {
  int64_t offset = 0;
  Tensor ids = {};        // i32 [batch, time]: the rows themselves
  Tensor first_key = {};  // i32 [batch]: taken off, but not below 0 (padding on the left)
  Tensor end_key = {};    // i32 [batch]: the last time step stands at end_key - 1, whatever the offset
};

/// The same as pointers, for kernels.
struct RotaryRows {
  explicit RotaryRows(const RotaryPositions& at, int64_t steps) : offset(at.offset), time(steps) {
    const auto address = [](const Tensor& x) { return x.defined() ? x.data<int32_t>() : nullptr; };
    ids = address(at.ids);
    first_key = address(at.first_key);
    end_key = address(at.end_key);
  }
  MONOID_HOST_DEVICE int64_t row(int64_t sequence, int64_t step) const {
    if (ids) return ids[sequence * time + step];
    int64_t row = step + (end_key ? end_key[sequence] - time : offset);
    if (first_key) {
      row -= first_key[sequence];
      if (row < 0) row = 0;
    }
    return row;
  }

  int64_t offset, time;
  const int32_t *ids, *first_key, *end_key;
};

/// For every pair (a, b) of the first 2 * pair channels: y = (a cos - b sin, b cos + a sin), or with `transposed`,
/// which is the gradient, (a cos + b sin, b cos - a sin). Other channels are copied. x and y [batch, time, head,
/// channel] have adjacent channels and any other strides; table [2, row, pair] is contiguous, f32 (f64 for f64),
/// cosines first. Rows outside of the table are an Error.
using Rotary = void(const Tensor& x, const Tensor& table, RotaryPairs pairs, const RotaryPositions& at, bool transposed,
                    Tensor& y);

namespace kernels {
inline constinit Kernel<Rotary> rotary{"rotary"};
}  // namespace kernels

namespace cpu {
Rotary rotary;
}  // namespace cpu

namespace cuda {
Rotary rotary;
}  // namespace cuda

}  // namespace monoid

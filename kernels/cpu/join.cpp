// Piece by piece: a copy or a fill of its window.

#include "monoid/kernels/join.h"

#include "monoid/core/copy.h"

namespace monoid::cpu {

void join(std::span<const JoinPiece> pieces, int axis, Tensor& whole) {
  int64_t first = 0;
  for (const auto& [x, extent] : pieces) {
    Tensor window = whole.as_strided(whole.shape().with(axis, extent), whole.strides(),
                                     whole.offset() + first * whole.strides()[axis]);
    if (x.defined()) {
      copy(x, window);
    } else {
      fill(window, 0);
    }
    first += extent;
  }
}

}  // namespace monoid::cpu

#include "monoid/kernels/decoding.h"

namespace monoid::cpu {

void copy_each(const Tensor&, std::span<const CopyItem> items) {
  for (CopyItem item : items) item.to.copy_from(item.from);
}

}  // namespace monoid::cpu

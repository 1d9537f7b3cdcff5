#include "monoid/ops/sequences.h"

#include "monoid/core/error.h"

namespace monoid {

void check_sequence(const char* op, const char* argument, const Tensor& x, int parts) {
  check_defined(op, argument, x);
  const int rank = parts == 1 ? 3 : 4;
  const char* wanted = parts == 1 ? "[batch, time, channel]" : "[batch, time, channel, 2]";
  check(x.rank() == rank && (parts == 1 || x.size(3) == parts), op, ": ", argument, " is ", describe(x), ", wanted ",
        wanted);
  if (x.elements() == 0) return;
  for (int axis = 0; axis < rank; ++axis) {
    const int64_t inside = axis == 3 || parts == 1 ? 1 : parts;
    const bool fits = axis >= 2 ? x.strides()[axis] == inside : x.strides()[axis] > 0;
    check(fits || x.size(axis) == 1, op, ": ", argument, " is ", describe(x), " with strides ", x.strides(),
          ", wanted adjacent channels and positive strides; call contiguous() on it");
  }
}

Tensor readable(const Tensor& x) { return x.defined() && x.size(-1) > 1 && x.strides()[-1] != 1 ? x.clone() : x; }

Tensor dense(const Tensor& x) { return x.defined() && !x.is_contiguous() ? x.clone() : x; }

Tensor gradient_of(const Tensor& initial) { return initial.requires_grad() ? Tensor::empty_like(initial) : Tensor(); }

}  // namespace monoid

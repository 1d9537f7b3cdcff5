#include "monoid/ops/complex_scan.h"

#include "monoid/kernels/gate_loop.h"
#include "monoid/ops/sequences.h"

namespace monoid {

ScanResult complex_scan(const Tensor& a, const Tensor& b, const Tensor& initial, Direction direction) {
  const char* op = "complex_scan";
  check_sequence(op, "a", a, 2);
  check_sequence(op, "b", b, 2);
  check_same_device_and_dtype(op, a, b);
  check_shape(op, "b", b, a.shape());
  const Shape state{a.size(0), a.size(2), 2};
  if (initial.defined()) {
    check_same_device_and_dtype(op, a, initial);
    check_shape(op, "initial state", initial, state);
  }
  const Tensor entering = dense(initial);
  Tensor states = Tensor::empty(a.shape(), a.dtype(), a.device()), final = Tensor::empty(state, a.dtype(), a.device());
  kernels::complex_scan(a, b, entering, states, final, direction);
  Tape::record(op, {a, b, initial}, {states, final}, [=](const Tensors& cotangents) -> Tensors {
    Tensor a_gradient = Tensor::empty_like(a), b_gradient = Tensor::empty_like(a);
    Tensor initial_gradient = gradient_of(initial);
    kernels::complex_scan_gradient(a, entering, states, dense(cotangents[0]), dense(cotangents[1]), a_gradient,
                                   b_gradient, initial_gradient, direction);
    return {a_gradient, b_gradient, initial_gradient};
  });
  return {states, final};
}

}  // namespace monoid

#include "monoid/ops/matrix_scan.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/log_step_scan.h"
#include "monoid/ops/matmul.h"
#include "monoid/ops/rows.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

constexpr const char* kWanted = ", wanted [batch, time, head, order, order]";

// What states are held in between calls.
DType state_dtype(DType stored) { return stored == DType::bf16 ? DType::f32 : stored; }

bool has_whole_matrices(const Tensor& x) {
  const int64_t order = x.size(-1);
  return order < 2 || (x.strides()[-1] == 1 && x.strides()[-2] == order);
}

void check_matrices(const char* op, const char* argument, const Tensor& x) {
  check_defined(op, argument, x);
  check(x.rank() == 5 && x.size(3) == x.size(4), op, ": ", argument, " is ", describe(x), kWanted);
  check(x.size(3) > 0, op, ": ", argument, " is ", describe(x), ": matrices need an order of at least 1");
  if (x.elements() == 0) return;
  for (int axis = 0; axis < 3; ++axis) {
    check(x.size(axis) == 1 || x.strides()[axis] > 0, op, ": ", argument, " is ", describe(x), " with strides ",
          x.strides(), ", wanted positive ones; call contiguous() on it");
  }
  check(has_whole_matrices(x), op, ": ", argument, " is ", describe(x), " with strides ", x.strides(),
        ", wanted each matrix in one piece; call contiguous() on it");
}

// Shapes of what a scan takes and gives besides.
Shape state_shape(const Tensor& x) { return {x.size(0), x.size(2), x.size(3), x.size(4)}; }

void check_initial(const char* op, const Tensor& x, const Tensor& initial) {
  if (!initial.defined()) return;
  if (initial.dtype() != state_dtype(x.dtype())) check_same_device_and_dtype(op, x, initial);
  check(initial.device() == x.device(), op, ": the initial state is ", describe(initial), ", x is ", describe(x),
        "; move one of them");
  check_shape(op, "initial state", initial, state_shape(x));
}

// A state, or a cotangent of one, that a kernel can read.
Tensor readable(const Tensor& x, DType dtype) {
  if (!x.defined()) return x;
  const Tensor converted = x.dtype() == dtype ? x : x.to(dtype);
  return has_whole_matrices(converted) ? converted : converted.clone();
}

Tensor as_gradient(const Tensor& gradient, const Tensor& of) {
  return !gradient.defined() || gradient.dtype() == of.dtype() ? gradient : gradient.to(of.dtype());
}

ScanResult kernel_scan(const char* op, const Tensor& x, const Tensor& initial, MatrixForm form, TimeCut cut) {
  check_matrices(op, form == MatrixForm::plain ? "x" : "m", x);
  check_initial(op, x, initial);
  const DType held = state_dtype(x.dtype());
  const Tensor entering = readable(initial, held);
  Tensor states = Tensor::empty_like(x), final = Tensor::empty(state_shape(x), held, x.device());
  kernels::matrix_scan(x, entering, states, final, form, cut);
  Tape::record(op, {x, initial}, {states, final}, [=](const Tensors& cotangents) -> Tensors {
    Tensor x_gradient = Tensor::empty_like(x), initial_gradient;
    if (initial.requires_grad()) initial_gradient = Tensor::empty(initial.shape(), held, initial.device());
    kernels::matrix_scan_gradient(x, entering, states, readable(cotangents[0], x.dtype()),
                                  readable(cotangents[1], held), x_gradient, initial_gradient, form, cut);
    return {x_gradient, as_gradient(initial_gradient, initial)};
  });
  return {states, final};
}

// ------------------------------------------------------------------------------------------------ log-step algorithms

template <class Combine>
Tensors log_step_scan(MatrixScanAlgorithm algorithm, const Tensors& element, const Combine& combine) {
  return algorithm == MatrixScanAlgorithm::brent_kung ? brent_kung_scan(element, combine)
                                                      : hillis_steele_scan(element, combine);
}

// Steps that lie side by side are one batch of products.
Tensor product_of(const Tensor& left, const Tensor& right) {
  return matmul(contiguous_or_copy(left), contiguous_or_copy(right));
}
Tensors product(const Tensors& left, const Tensors& right) { return {product_of(left[0], right[0])}; }
// Row -> row keep + add, for all rows of a state at once: the elements of the adjoint.
Tensors affine(const Tensors& left, const Tensors& right) {
  const Tensor keep = contiguous_or_copy(right[0]);
  return {product_of(left[0], keep), add(product_of(left[1], keep), right[1])};
}

// The steps of x but the last, behind another one.
Tensor with_step_before(const Tensor& x, const Tensor& step) {
  return concat({unsqueeze(step, 1), slice(x, 1, 0, x.size(1) - 1)}, 1);
}

Tensor identity_like(const Tensor& state) {
  const int64_t order = state.size(-1);
  const Tensor result = Tensor::zeros_like(state);
  result.as_strided({state.elements() / (order * order), order}, {order * order, order + 1}, 0).fill(1);
  return result;
}

ScanResult log_step_matrix_scan(MatrixScanAlgorithm algorithm, const Tensor& x, const Tensor& initial) {
  const char* const op = "matrix_scan";
  check_matrices(op, "x", x);
  check_initial(op, x, initial);
  const NoTape paused;
  const DType held = state_dtype(x.dtype());
  const Tensor entering = readable(initial, held), matrices = x.dtype() == held ? x.clone() : x.to(held);
  const int64_t time = x.size(1);
  Tensor states = matrices,
         final = entering.defined() ? entering.clone() : identity_like(Tensor::empty(state_shape(x), held, x.device()));
  if (time > 0) {
    if (entering.defined()) {
      Tensor first = select(states, 1, 0);
      first.copy_from(matmul(entering, first));
    }
    states = log_step_scan(algorithm, {states}, product)[0];
    final = select(states, 1, -1).clone();
  }
  return {states.to(x.dtype()), final};
}

// The adjoint is the same kind of scan over time turned round, of (transpose(x_{t+1}), cotangent of state t).
Tensors log_step_gradient(MatrixScanAlgorithm algorithm, const Tensor& x, const Tensor& entering, const Tensor& states,
                          const Tensors& cotangents) {
  const DType held = state_dtype(x.dtype());
  const auto or_zeros = [&](const Tensor& cotangent, const Shape& shape) {
    return cotangent.defined() ? cotangent.to(held) : Tensor::zeros(shape, held, x.device());
  };
  const Tensor later = or_zeros(cotangents[1], state_shape(x));
  if (x.size(1) == 0) return {Tensor::zeros_like(x), later};
  const Tensor matrices = x.to(held), none = identity_like(later);
  const Tensor turned = flip(transpose(matrices, -1, -2), 1), adjoints = flip(or_zeros(cotangents[0], x.shape()), 1);
  const Tensor first = add(select(adjoints, 1, 0), later);
  const Tensor added = concat({unsqueeze(first, 1), slice(adjoints, 1, 1, x.size(1))}, 1);
  const Tensor carried = log_step_scan(algorithm, {contiguous(with_step_before(turned, none)), added}, affine)[1];
  const Tensor reached = flip(carried, 1);
  const Tensor before = with_step_before(states.to(held), entering.defined() ? entering : none);
  return {matmul(transpose(before, -1, -2), reached).to(x.dtype()),
          matmul(select(reached, 1, 0), transpose(select(matrices, 1, 0), -1, -2))};
}

}  // namespace

ScanResult matrix_scan(const Tensor& x, const Tensor& initial, MatrixScanAlgorithm algorithm) {
  if (algorithm == MatrixScanAlgorithm::chunked || algorithm == MatrixScanAlgorithm::sequential) {
    return kernel_scan("matrix_scan", x, initial, MatrixForm::plain,
                       algorithm == MatrixScanAlgorithm::chunked ? TimeCut::allowed : TimeCut::never);
  }
  const ScanResult result = log_step_matrix_scan(algorithm, x, initial);
  const Tensor entering = readable(initial, state_dtype(x.dtype()));
  Tape::record("matrix_scan", {x, initial}, {result.states, result.final},
               [=, states = result.states](const Tensors& cotangents) -> Tensors {
                 Tensors gradients = log_step_gradient(algorithm, x, entering, states, cotangents);
                 gradients[1] = initial.defined() ? as_gradient(gradients[1], initial) : Tensor();
                 return gradients;
               });
  return result;
}

ScanResult mru_scan(const Tensor& m, const Tensor& initial) {
  return kernel_scan("mru_scan", m, initial, MatrixForm::ldu, TimeCut::allowed);
}

Tensor ldu_matrix(const Tensor& m) {
  check_defined("ldu_matrix", "m", m);
  check(m.rank() >= 2 && m.size(-1) == m.size(-2) && m.size(-1) > 0, "ldu_matrix: m is ", describe(m),
        ", wanted [..., order, order]");
  const Tensor matrices = contiguous_or_copy(m);
  Tensor x = Tensor::empty_like(matrices);
  kernels::ldu_matrix(matrices, x);
  Tape::record("ldu_matrix", {m}, {x}, [=](const Tensors& cotangents) -> Tensors {
    Tensor m_gradient = Tensor::empty_like(matrices);
    kernels::ldu_matrix_gradient(matrices, contiguous_or_copy(cotangents[0]), m_gradient);
    return {m_gradient};
  });
  return x;
}

std::optional<MatrixOverflow> take_matrix_overflow(Device device) {
  MatrixOverflow found;
  kernels::take_matrix_overflow(Tensor::empty({0}, DType::f32, device), found);
  return found.time < 0 ? std::nullopt : std::optional(found);
}

std::string describe(const MatrixOverflow& overflow) {
  return str("the state of a matrix scan (batch row ", overflow.batch, ", head ", overflow.head,
             ") left the range of f32 by time step ", overflow.time,
             ": lower the learning rate of what makes its matrices, clip its gradient, or train on shorter sequences");
}

}  // namespace monoid

// Tensors to cuBLASLt: batch axes fold into rows, columns or k where the steps allow; of those that are left one
// becomes a strided batch and the others a loop, and a sum over axes accumulates in f32. Products of a few rows have a
// kernel of their own.

#include "monoid/kernels/matmul.h"

#include <algorithm>

#include "monoid/kernels/cuda/blas.h"
#include "monoid/kernels/cuda/thin_matmul.h"
#include "monoid/kernels/matmul_precision.h"
#include "monoid/kernels/product.h"

namespace monoid::cuda {
namespace {

constexpr int64_t kLargestBatch = 65535;  // of one launch

template <class T>
BlasLayout layout_of(const Matrix<T>& x, int64_t step) {
  const bool by_columns = !has_rows(x);
  const Matrix<T> lines = by_columns ? x.transposed() : x;
  return {by_columns, std::max<int64_t>(lines.rows <= 1 ? lines.columns : lines.row_step, 1), step};
}

template <class T>
BlasProblem problem_of(const Product<T>& p, DType output, const BatchAxis& batch, const BlasOperands& on) {
  BlasProblem problem;
  problem.input = dtype_of<T>;
  problem.output = output;
  problem.tf32 = dtype_of<T> == DType::f32 && matmul_precision() == MatmulPrecision::tf32;
  problem.m = p.m();
  problem.n = p.n();
  problem.k = p.k();
  problem.batch = batch.extent;
  problem.a = layout_of(p.a, batch.a);
  problem.b = layout_of(p.b, batch.b);
  problem.c = layout_of(p.c, batch.c);
  problem.adds_bias = on.bias != nullptr;
  problem.adds_addend = on.addend != nullptr;
  return problem;
}

// A product of zeros: what is left of a sum over nothing is the bias and the addend.
template <class T>
Tensor without_terms(Product<T>& p, Device device) {
  Tensor zeros = Tensor::zeros({std::max(p.m(), p.n())}, dtype_of<T>, device);
  p.a = {zeros.data<T>(), p.m(), 1, 1, 1};
  p.b = {zeros.data<T>(), 1, p.n(), p.n(), 1};
  for (BatchAxis& axis : p.moving) axis.a = axis.b = 0;
  p.summed.clear();
  return zeros;
}

// The moving axis that becomes the batch of one launch: the longest.
BatchAxis take_batch(BatchAxes& axes) {
  const auto taken = std::max_element(axes.begin(), axes.end(), [](const BatchAxis& x, const BatchAxis& y) {
    return std::min(x.a, x.b) >= 0 && std::min(y.a, y.b) >= 0 ? x.extent < y.extent : x.a < 0 || x.b < 0;
  });
  if (taken == axes.end() || taken->a < 0 || taken->b < 0) return {1, 0, 0, 0};
  const BatchAxis batch = *taken;
  axes.erase(taken);
  return batch;
}

// Runs a folded product into `output`, which is laid out as p.c and of the dtype of bias; `on_top` of what it holds, or
// of the addend.
template <class T>
void run(const Launch& launch, Product<T> p, const Tensor& bias, Tensor& output, bool on_top) {
  if (!has_rows(p.c)) p.transpose();
  const BatchAxis batch = take_batch(p.moving);
  const auto element = static_cast<int64_t>(size_of(output.dtype()));
  for (int64_t index = 0; index < p.moving.count(); ++index) {
    const BatchOffsets outer = p.moving.offsets(index);
    for (int64_t first = 0; first < batch.extent; first += kLargestBatch) {
      BatchAxis part = batch;
      part.extent = std::min(kLargestBatch, batch.extent - first);
      for (int64_t sum = 0; sum < p.summed.count(); ++sum) {
        const BatchOffsets at = p.summed.offsets(sum);
        const int64_t c_offset = outer.c + first * batch.c;
        BlasOperands on{};
        on.a = p.a.data + outer.a + first * batch.a + at.a;
        on.b = p.b.data + outer.b + first * batch.b + at.b;
        on.bias = bias.defined() && sum == 0 ? bias.raw() : nullptr;
        on.c = static_cast<char*>(output.raw()) + c_offset * element;
        on.addend = p.addend ? p.addend + c_offset : nullptr;
        if (on_top || sum > 0) on.addend = on.c;
        check(blas_product(launch, problem_of(p, output.dtype(), part, on), on),
              "matmul: cuBLASLt has no algorithm for [", part.extent, ", ", p.m(), ", ", p.k(), "] x [", part.extent,
              ", ", p.k(), ", ", p.n(), "] of ", dtype_of<T>, "; contiguous() operands may have one");
      }
    }
  }
}

// Whether everything lies on the 16-byte grid of the fast kernels. The others round the product before they add to it,
// or do not exist.
template <class T>
bool on_grid(const Product<T>& p) {
  const auto fits = [](const auto& x) {
    const BlasLayout layout = layout_of(x, 0);
    return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && layout.leading * sizeof(T) % 16 == 0;
  };
  for (const BatchAxis& axis : p.moving) {
    if ((axis.a | axis.b | axis.c) * static_cast<int64_t>(sizeof(T)) % 16 != 0) return false;
  }
  return fits(p.a) && fits(p.b) && fits(p.c) && reinterpret_cast<uintptr_t>(p.addend) % 16 == 0;
}

// A linear of a few rows: b by columns, everything in one matrix.
template <class T>
bool run_thin(const Launch& launch, const Product<T>& p, const Tensor& bias) {
  if (!p.moving.empty() || !p.summed.empty() || !has_rows(p.a) || !has_rows(p.b.transposed()) || !has_rows(p.c))
    return false;
  const auto step = [](const auto& x) { return x.rows == 1 ? 0 : x.row_step; };
  return thin_product<T>(launch, {p.a.data, p.b.data, address_of<T>(bias), p.addend, p.c.data, step(p.a),
                                  step(p.b.transposed()), step(p.c), p.m(), p.n(), p.k()});
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& addend, Tensor& c) {
  dispatch_storage("matmul", c.dtype(), [&]<class T>() {
    if (c.elements() == 0) return;
    const Launch launch("matmul", c);
    Operands<T> operands = matmul_operands<T>(a, b, bias, addend, c);
    Product<T>& p = operands.product;
    p.fold();
    Tensor zeros;
    if (p.k() == 0 || p.summed.count() == 0) zeros = without_terms(p, c.device());
    Tensor start = bias.defined() && !bias.is_contiguous() ? bias.clone() : bias;
    if (run_thin(launch, p, start)) return;
    const bool adds = bias.defined() || addend.defined(), sums = !p.summed.empty();
    if (dtype_of<T> == DType::f32 || (!sums && (!adds || on_grid(p)))) return run(launch, p, start, c, false);
    // What would be put together from several roundings to bf16 is put together in f32; off the grid all of it.
    const auto widened = [](const Tensor& x) { return x.defined() ? x.to(DType::f32) : x; };
    Tensor total = Tensor::empty(c.shape(), DType::f32, c.device());
    if (on_grid(p)) {
      if (addend.defined()) total.copy_from(addend);
      p.addend = nullptr;
      run(launch, p, widened(start), total, addend.defined());
    } else {
      matmul(widened(a), widened(b), widened(bias), widened(addend), total);
    }
    c.copy_from(total);
  });
}

}  // namespace monoid::cuda

#include "monoid/ops/cross_entropy.h"

#include "monoid/core/tape.h"
#include "monoid/kernels/cross_entropy.h"
#include "monoid/ops/rows.h"

namespace monoid {
namespace {

void check_arguments(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  constexpr auto kOp = "cross_entropy";
  check_defined(kOp, "logits", logits);
  check_defined(kOp, "targets", targets);
  check(is_floating(logits.dtype()) && logits.rank() >= 1 && logits.size(-1) >= 1, kOp,
        ": wants floating-point logits [..., classes], got ", describe(logits));
  check(targets.dtype() == DType::i32 || targets.dtype() == DType::i64, kOp,
        ": targets are class numbers, i32 or i64, got ", describe(targets));
  check(targets.device() == logits.device(), kOp, ": logits ", describe(logits), " and targets ", describe(targets),
        " are on different devices");
  check(targets.shape() == logits.shape().without(-1), kOp, ": targets ", describe(targets), " do not fit logits ",
        describe(logits), "; they need one class a row, ", logits.shape().without(-1));
  check(options.label_smoothing >= 0 && options.label_smoothing <= 1, kOp, ": label smoothing is in [0, 1], got ",
        options.label_smoothing);
}

}  // namespace

// A reduced loss has the gradient of its logits written in the same pass, divided by the rows that count, as nearly
// every caller wants both; its cotangent, nearly always 1, is multiplied in later.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  check_arguments(logits, targets, options);
  const int64_t ignored = options.ignore_index;
  const double smoothing = options.label_smoothing;
  const bool reduced = options.reduction != Reduction::none, wants_gradient = Tape::records({logits});
  const DType dtype = logits.dtype() == DType::bf16 ? DType::f32 : logits.dtype();
  const auto empty = [&](const Shape& shape, DType of) { return Tensor::empty(shape, of, logits.device()); };

  const Tensor rows = with_contiguous_rows(logits);
  const Tensor classes = contiguous_or_copy(targets.to(DType::i64));
  Tensor losses = empty(targets.shape(), dtype), total, counted, statistics, dlogits;
  if (wants_gradient && !reduced) statistics = empty({targets.elements(), 2}, dtype);
  if (wants_gradient && reduced) dlogits = Tensor::empty_like(rows);
  if (options.reduction == Reduction::mean) {
    counted = empty({}, DType::i64);
    kernels::cross_entropy_count(classes, ignored, counted);
  }
  kernels::cross_entropy(rows, classes, counted, ignored, smoothing, losses, statistics, dlogits);
  if (!reduced) {
    Tape::record("cross_entropy", {logits}, {losses}, [=](const Tensors& dy) -> Tensors {
      Tensor dx = Tensor::empty_like(rows);
      kernels::cross_entropy_gradient(rows, classes, statistics, contiguous_or_copy(dy[0]), ignored, smoothing, dx);
      return {dx};
    });
    return losses;
  }
  total = empty({}, dtype);
  kernels::cross_entropy_total(losses, counted, total);
  Tape::record("cross_entropy", {logits}, {total}, [dlogits](const Tensors& dy) -> Tensors {
    Tensor dx = dlogits;
    kernels::cross_entropy_rescale(dy[0], dx);
    return {dx};
  });
  return total;
}

}  // namespace monoid

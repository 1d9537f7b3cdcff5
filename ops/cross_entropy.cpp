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

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  check_arguments(logits, targets, options);
  const int64_t count = targets.elements();
  const Tensor rows = with_contiguous_rows(logits);
  const Tensor classes = contiguous_or_copy(targets.to(DType::i64));
  Tensor losses = Tensor::empty(targets.shape(), logits.dtype(), logits.device());
  Tensor statistics = Tensor::empty({count, 2}, logits.dtype(), logits.device());
  kernels::cross_entropy(rows, classes, options.ignore_index, options.label_smoothing, losses, statistics);

  const bool reduced = options.reduction != Reduction::none;
  Tensor result = losses, scale;
  if (reduced) {
    result = Tensor::empty({}, logits.dtype(), logits.device());
    scale = Tensor::empty({}, DType::f64, logits.device());
    kernels::cross_entropy_total(losses, classes, options.ignore_index, options.reduction == Reduction::mean, result,
                                 scale);
  }
  Tape::record("cross_entropy", {logits}, {result}, [=](const Tensors& dy) -> Tensors {
    const Tensor dlosses =
        reduced ? dy[0].as_strided({count}, {0}, dy[0].offset()) : contiguous_or_copy(dy[0]).view({count});
    Tensor dlogits = Tensor::empty_like(rows);
    kernels::cross_entropy_gradient(rows, classes, statistics, dlosses, scale, options.ignore_index,
                                    options.label_smoothing, dlogits);
    return {dlogits};
  });
  return result;
}

}  // namespace monoid

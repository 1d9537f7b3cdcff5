#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// result = x summed over every axis where `result` has extent 1. `result` is contiguous and has the rank of x; x has
/// any strides, here and below.
using Sum = void(const Tensor& x, Tensor& result);
/// result = log(sum(exp(x))) along an axis; result [the other axes] is contiguous. -infinity for a row of nothing else.
using LogSumExp = void(const Tensor& x, int axis, Tensor& result);

enum class Extremum { largest, smallest };
/// index (i64 [the other axes], contiguous) = the first place of the largest or smallest x along an axis; a NaN counts
/// as more extreme than any number.
using ArgExtremum = void(const Tensor& x, int axis, Extremum which, Tensor& index);

namespace kernels {
inline constinit Kernel<Sum> sum{"sum"};
inline constinit Kernel<LogSumExp> logsumexp{"logsumexp"};
inline constinit Kernel<ArgExtremum> arg_extremum{"arg_extremum"};
}  // namespace kernels

namespace cpu {
Sum sum;
LogSumExp logsumexp;
ArgExtremum arg_extremum;
}  // namespace cpu

namespace cuda {
Sum sum;
LogSumExp logsumexp;
ArgExtremum arg_extremum;
}  // namespace cuda

}  // namespace monoid

#pragma once

#include <cstdint>
#include <span>

#include "monoid/core/kernel.h"

namespace monoid {

// A token of a decoded sequence is a row of numbers in every tensor: kernels take no time next to their launches, so
// what counts is how few they are.

enum class Activation : uint8_t { none, gelu };

/// What a linear does besides in the same kernel. Undefined tensors are not there.
struct FewRowsExtras {
  bool normed = false;  // x is first normed as rms_norm does, with norm_weight [k] and eps
  Tensor norm_weight = {};
  double eps = 0;
  Tensor bias = {};  // [n]
  Activation activation = Activation::none;
};

/// y [m, n] = activation(norm(x) [m, k] weight [n, k]^T + bias), all contiguous: linears while decoding, which are so
/// small that launches are what they cost. Allocates y, or leaves it undefined: a product of another kind, which is
/// the caller's. Only for devices on which it pays.
using FewRowsLinear = void(const Tensor& x, const Tensor& weight, const FewRowsExtras& extras, Tensor& y);

/// from copied to `to`, of one shape and dtype, contiguous.
struct CopyItem {
  Tensor from, to;
};
/// All of the items in as few launches as possible; `on` has their device. Copies may not depend on each other.
using CopyEach = void(const Tensor& on, std::span<const CopyItem> items);

namespace kernels {
inline constinit Kernel<FewRowsLinear> few_rows_linear{"few_rows_linear"};
inline constinit Kernel<CopyEach> copy_each{"copy_each"};
}  // namespace kernels

namespace cpu {
CopyEach copy_each;
}  // namespace cpu

namespace cuda {
FewRowsLinear few_rows_linear;
CopyEach copy_each;
}  // namespace cuda

}  // namespace monoid

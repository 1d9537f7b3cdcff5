#pragma once

#include "monoid/kernels/cuda/scan_run.cuh"

// Rows of complex numbers for the scan engine.

namespace monoid::cuda {

/// f32 pairs are loaded whole: one that lies across their grid is copied first. (bf16 has a slower way.)
inline Tensor on_pair_grid(const Tensor& x) {
  if (!x.defined() || x.dtype() != DType::f32 || x.elements() == 0) return x;
  bool fits = aligned_for<2>(x.data<float>());
  for (int axis = 0; axis + 1 < x.rank(); ++axis) fits = fits && (x.size(axis) == 1 || x.strides()[axis] % 2 == 0);
  return fits ? x : x.clone();
}

/// Kept states of kernels/recall.h, [batch, group, channel] or [batch, group, channel, 2]; steps are groups.
template <class Of>
Rows<float> kept_rows_of(const Of& kept) {
  if (!kept.defined()) return {};
  return {const_cast<float*>(kept.template data<float>()), kept.strides()[0], static_cast<int>(kept.strides()[1])};
}

}  // namespace monoid::cuda

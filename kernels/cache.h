#pragma once

#include "monoid/core/kernel.h"

namespace monoid {

/// k_cache[b, end_key[b] - time + t] = k[b, t] and the same for v, of any dtype: k [batch, time, head, channel], v
/// [batch, time, head, value_channel], caches [batch, capacity, head, ...], all with adjacent channels and any other
/// strides; end_key i32 [batch]. The other places of the caches keep what they hold. Ends that do not fit are an Error.
using AppendToCache = void(const Tensor& k, const Tensor& v, const Tensor& end_key, Tensor& k_cache, Tensor& v_cache);

namespace kernels {
inline constinit Kernel<AppendToCache> append_to_cache{"append_to_cache"};
}  // namespace kernels

namespace cpu {
AppendToCache append_to_cache;
}  // namespace cpu

namespace cuda {
AppendToCache append_to_cache;
}  // namespace cuda

}  // namespace monoid

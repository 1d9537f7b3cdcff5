#pragma once

#include "monoid/core/tape.h"

namespace monoid {

/// Puts new keys and values [batch, time, head, channel] into caches [batch, capacity, head, channel], in place, so
/// that they end where `end_key` (i32 [batch], on the device) says; attention() and rotary() take the same tensor. It
/// is read when the kernel runs: a captured step of decoding is replayed at the next place after `end_key.fill(...)`.
/// For inference: has no gradient, and under a tape wants detached keys and values.
void append_to_cache(const Tensor& k, const Tensor& v, const Tensor& end_key, Tensor& k_cache, Tensor& v_cache);

}  // namespace monoid

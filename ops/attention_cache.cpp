#include "monoid/ops/attention_cache.h"

#include "monoid/kernels/cache.h"
#include "monoid/ops/rows.h"

namespace monoid {
namespace {

constexpr const char* kOp = "append_to_cache";

void check_pair(const char* name, const Tensor& rows, const Tensor& cache) {
  check_defined(kOp, name, rows);
  check_defined(kOp, "a cache", cache);
  check(rows.rank() == 4 && cache.rank() == 4, kOp, ": ", name, " is ", describe(rows), " and its cache ",
        describe(cache), ", wanted [batch, time, head, channel] and [batch, capacity, head, channel]");
  check_same_device_and_dtype(kOp, rows, cache);
  check_shape(kOp, "the cache", cache, rows.shape().with(1, cache.size(1)));
  check(cache.size(3) <= 1 || cache.strides()[3] == 1, kOp, ": the cache is ", describe(cache), " with strides ",
        cache.strides(), ", wanted adjacent channels");
}

}  // namespace

void append_to_cache(const Tensor& k, const Tensor& v, const Tensor& end_key, Tensor& k_cache, Tensor& v_cache) {
  check_pair("k", k, k_cache);
  check_pair("v", v, v_cache);
  check_same_device_and_dtype(kOp, k, v);
  check_shape(kOp, "v", v, k.shape().with(3, v.size(3)));
  check(k_cache.size(1) == v_cache.size(1), kOp, ": the caches hold ", k_cache.size(1), " and ", v_cache.size(1),
        " places, wanted as many of each");
  check_defined(kOp, "end_key", end_key);
  check(end_key.dtype() == DType::i32 && end_key.device() == k.device(), kOp, ": end_key is ", describe(end_key),
        ", wanted i32 on ", k.device());
  check_shape(kOp, "end_key", end_key, {k.size(0)});
  check(!Tape::records({k, v, k_cache, v_cache}), kOp,
        ": a tape records and k, v or a cache wants a gradient, which a cache cannot give; detach() them");
  kernels::append_to_cache(with_contiguous_rows(k), with_contiguous_rows(v), contiguous_or_copy(end_key), k_cache,
                           v_cache);
}

}  // namespace monoid

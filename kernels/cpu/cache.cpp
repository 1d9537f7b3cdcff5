// New keys and values into their caches: copies of rows.

#include "monoid/kernels/cache.h"

#include <cstring>

#include "monoid/core/parallel.h"

namespace monoid::cpu {
namespace {

void append(const Tensor& rows, const int32_t* ends, Tensor& cache) {
  const int64_t time = rows.size(1), heads = rows.size(2);
  const size_t element = size_of(rows.dtype()), bytes = static_cast<size_t>(rows.size(3)) * element;
  const Strides in = rows.strides(), out = cache.strides();
  const char* from = static_cast<const char*>(rows.raw());
  char* to = static_cast<char*>(cache.raw());
  parallel_for(rows.size(0) * time, 16, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t sequence = i / time, step = i % time, place = ends[sequence] - time + step;
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t source = sequence * in[0] + step * in[1] + head * in[2];
        const int64_t target = sequence * out[0] + place * out[1] + head * out[2];
        std::memcpy(to + target * static_cast<int64_t>(element), from + source * static_cast<int64_t>(element), bytes);
      }
    }
  });
}

}  // namespace

void append_to_cache(const Tensor& k, const Tensor& v, const Tensor& end_key, Tensor& k_cache, Tensor& v_cache) {
  const int32_t* ends = end_key.data<int32_t>();
  for (int64_t sequence = 0; sequence < k.size(0); ++sequence) {
    check(ends[sequence] >= k.size(1) && ends[sequence] <= k_cache.size(1), "append_to_cache: sequence ", sequence,
          " would end at ", ends[sequence], " of ", k_cache.size(1), " places, with ", k.size(1), " new ones");
  }
  append(k, ends, k_cache);
  append(v, ends, v_cache);
}

}  // namespace monoid::cpu

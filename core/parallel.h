#pragma once

#include <cstdint>
#include <type_traits>

namespace monoid {

/// Threads that CPU kernels use. Default: MONOID_NUM_THREADS, else OMP_NUM_THREADS, else the cores this process may
/// run on. Results never depend on it.
int threads();
void set_threads(int count);

namespace detail {
using RangeFunction = void (*)(void* body, int64_t begin, int64_t end);
void parallel_ranges(int64_t count, int64_t grain, void* body, RangeFunction function);
}  // namespace detail

/// Calls body(begin, end) over [0, count) in pieces of `grain` (the last may be shorter), on the pool's threads.
/// The pieces are the same for any number of threads, so a body that only writes its own range is deterministic.
/// Runs inline when there is one piece, or inside another parallel_for. An exception in a body reaches the caller.
template <class Body>
void parallel_for(int64_t count, int64_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  detail::parallel_ranges(
      count, grain, const_cast<void*>(static_cast<const void*>(&body)),
      [](void* context, int64_t begin, int64_t end) { (*static_cast<Plain*>(context))(begin, end); });
}

}  // namespace monoid

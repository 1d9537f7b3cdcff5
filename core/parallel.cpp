#include "monoid/core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>

#include "monoid/core/error.h"

namespace monoid {
namespace {

int default_threads() {
  if (const char* wanted = std::getenv("MONOID_NUM_THREADS")) {
    int count = 0;
    const char* end = wanted + std::strlen(wanted);
    const bool is_number = std::from_chars(wanted, end, count).ptr == end;
    check(is_number && count >= 1, "MONOID_NUM_THREADS: '", wanted, "' is not a number of threads; use 1 or more");
    return count;
  }
  return omp_get_max_threads();
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{default_threads()};
  return count;
}

}  // namespace

int threads() { return thread_count().load(std::memory_order_relaxed); }

void set_threads(int count) {
  check(count >= 1, "set_threads: wants at least one thread, got ", count);
  thread_count().store(count, std::memory_order_relaxed);
}

namespace detail {

void parallel_ranges(int64_t count, int64_t grain, void* body, RangeFunction function) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = (count + grain - 1) / grain;
  const auto run = [&](int64_t piece) { function(body, piece * grain, std::min(count, (piece + 1) * grain)); };
  const int workers = static_cast<int>(std::min<int64_t>(threads(), pieces));
  if (workers <= 1 || omp_in_parallel()) {
    for (int64_t piece = 0; piece < pieces; ++piece) run(piece);
    return;
  }
  std::exception_ptr failure;
  std::mutex failure_mutex;
#pragma omp parallel for num_threads(workers) schedule(dynamic)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    try {
      run(piece);
    } catch (...) {
      std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace detail
}  // namespace monoid

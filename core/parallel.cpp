#include "monoid/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "monoid/core/error.h"

// The caller and the workers take pieces off one counter, and the caller waits only for pieces that somebody has
// begun. A worker that the system does not schedule costs nothing: on a busy machine a region then takes as long as
// the caller alone needs, where a barrier over all threads would wait for that worker's next time slice.

namespace monoid {
namespace {

int read_count(const char* name, const char* text) {
  int count = 0;
  const char* end = text + std::strlen(text);
  const bool is_number = std::from_chars(text, end, count).ptr == end;
  check(is_number && count >= 1, name, ": '", text, "' is not a number of threads; use 1 or more");
  return count;
}

int default_threads() {
  for (const char* name : {"MONOID_NUM_THREADS", "OMP_NUM_THREADS"}) {
    if (const char* wanted = std::getenv(name)) return read_count(name, wanted);
  }
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{default_threads()};
  return count;
}

// Waits for an atomic to leave `old`: spinning for some 50 microseconds, because the next region of a training step
// is usually that near, then asleep.
template <class T>
void wait_for_change(const std::atomic<T>& value, T old) {
  for (int spin = 0; spin < 1000; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  value.wait(old, std::memory_order_acquire);
}

thread_local bool inside_region = false;

/// One parallel_for. Shared with the workers, because one may come to it when it is long over.
class Region {
 public:
  Region(int64_t count, int64_t grain, int64_t pieces, int helpers, void* body, detail::RangeFunction function)
      : count_(count), grain_(grain), pieces_(pieces), seats_(helpers), body_(body), function_(function) {}

  /// A worker's part: nothing where enough others are at it.
  void help() {
    if (seats_.fetch_sub(1, std::memory_order_relaxed) > 0) take_pieces();
  }

  /// The caller's part: works, waits for what others began, and throws what any piece threw.
  void finish() {
    take_pieces();
    for (int64_t done; (done = done_.load(std::memory_order_acquire)) < pieces_;) wait_for_change(done_, done);
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void take_pieces() {
    inside_region = true;
    for (int64_t piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < pieces_;) {
      try {
        function_(body_, piece * grain_, std::min(count_, (piece + 1) * grain_));
      } catch (...) {
        std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces_) done_.notify_all();
    }
    inside_region = false;
  }

  const int64_t count_, grain_, pieces_;
  std::atomic<int64_t> next_{0}, done_{0};
  std::atomic<int> seats_;
  void* body_;
  detail::RangeFunction function_;
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

/// The workers, which sleep between regions. Never destroyed: they end with the process.
class Pool {
 public:
  void run(const std::shared_ptr<Region>& region, int helpers) {
    {
      std::lock_guard lock(mutex_);
      while (workers_.size() < static_cast<size_t>(helpers)) {
        workers_.emplace_back([this, seen = epoch_.load()] { work(seen); });
      }
      region_ = region;
    }
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    region->finish();
  }

 private:
  [[noreturn]] void work(int seen) {
    while (true) {
      wait_for_change(epoch_, seen);
      seen = epoch_.load(std::memory_order_acquire);
      std::shared_ptr<Region> region;
      {
        std::lock_guard lock(mutex_);
        region = region_;
      }
      if (region) region->help();
    }
  }

  std::mutex mutex_;
  std::shared_ptr<Region> region_;  // the newest
  std::atomic<int> epoch_{0};       // counts regions
  std::vector<std::thread> workers_;
};

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
  const int helpers = static_cast<int>(std::min<int64_t>(threads(), pieces)) - 1;
  if (helpers <= 0 || inside_region) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      function(body, piece * grain, std::min(count, (piece + 1) * grain));
    }
    return;
  }
  static Pool& pool = *new Pool;
  pool.run(std::make_shared<Region>(count, grain, pieces, helpers, body, function), helpers);
}

}  // namespace detail
}  // namespace monoid

#include "monoid/core/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "monoid/core/error.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

using Pieces = std::vector<std::pair<int64_t, int64_t>>;

// Runs a test with `count` threads and gives the previous number back.
class WithThreads {
 public:
  explicit WithThreads(int count) : before_(threads()) { set_threads(count); }
  ~WithThreads() { set_threads(before_); }

 private:
  int before_;
};

Pieces pieces_of(int64_t count, int64_t grain) {
  Pieces pieces;
  std::mutex mutex;
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    std::lock_guard lock(mutex);
    pieces.emplace_back(begin, end);
  });
  std::sort(pieces.begin(), pieces.end());
  return pieces;
}

}  // namespace

TEST_CASE("the pieces are the same for any number of threads", "[parallel]") {
  for (int count : {1, 2, 3, 8}) {
    CAPTURE(count);
    const WithThreads set(count);
    CHECK(threads() == count);
    CHECK(pieces_of(10, 4) == Pieces{{0, 4}, {4, 8}, {8, 10}});
    CHECK(pieces_of(8, 4) == Pieces{{0, 4}, {4, 8}});
    CHECK(pieces_of(3, 100) == Pieces{{0, 3}});
    CHECK(pieces_of(3, 0) == Pieces{{0, 1}, {1, 2}, {2, 3}});
    CHECK(pieces_of(0, 4).empty());
    CHECK(pieces_of(100'000, 7).size() == (100'000 + 6) / 7);
  }
}

TEST_CASE("an exception in any piece reaches the caller, and the pool goes on working", "[parallel]") {
  const WithThreads set(4);
  for (int64_t thrower : {0, 37, 99}) {
    CAPTURE(thrower);
    CHECK_THROWS_WITH(
        parallel_for(100, 1, [&](int64_t begin, int64_t) { check(begin != thrower, "piece ", begin, " failed"); }),
        ContainsSubstring(str("piece ", thrower, " failed")));
  }
  CHECK_THROWS_AS(parallel_for(64, 1, [](int64_t, int64_t) { throw std::runtime_error("each"); }), std::runtime_error);
  CHECK(pieces_of(64, 1).size() == 64);
}

TEST_CASE("a parallel_for inside another runs on the thread it is in", "[parallel]") {
  const WithThreads set(4);
  std::atomic<int64_t> total{0}, elsewhere{0};
  parallel_for(16, 1, [&](int64_t begin, int64_t) {
    const auto outer = std::this_thread::get_id();
    parallel_for(10, 3, [&](int64_t inner_begin, int64_t inner_end) {
      if (std::this_thread::get_id() != outer) ++elsewhere;
      total += begin * (inner_end - inner_begin);
    });
  });
  CHECK(total == 10 * 120);
  CHECK(elsewhere == 0);
}

TEST_CASE("a number of threads below one is refused", "[parallel]") {
  CHECK_THROWS_WITH(set_threads(0), ContainsSubstring("at least one thread, got 0"));
}

}  // namespace monoid

#include "monoid/core/memory.h"

#include <cstdint>
#include <optional>

#include "monoid/core/tensor.h"
#include "monoid/tests/support/catch.h"

namespace monoid {

TEST_CASE("a freed block serves the next request of its size", "[memory]") {
  empty_cache();
  std::optional<Storage> block(std::in_place, 100'000, kCpu);
  void* const address = block->data();
  CHECK(reinterpret_cast<uintptr_t>(address) % 64 == 0);
  block.reset();
  const MemoryStats before = memory_stats();
  const Storage again(99'999, kCpu);
  const MemoryStats after = memory_stats();
  CHECK(again.data() == address);
  CHECK(after.requests == before.requests + 1);
  CHECK(after.misses == before.misses);
  CHECK(after.reserved == before.reserved);
}

TEST_CASE("statistics follow live, reserved and peak bytes", "[memory]") {
  empty_cache();
  reset_peak_memory();
  const MemoryStats start = memory_stats();
  CHECK(start.peak_allocated == start.allocated);
  CHECK(start.reserved == start.allocated);
  constexpr size_t kBytes = size_t{1} << 20;
  {
    const Storage a(kBytes, kCpu), b(kBytes, kCpu);
    CHECK(memory_stats().allocated == start.allocated + 2 * kBytes);
  }
  const Storage c(kBytes, kCpu);
  const MemoryStats end = memory_stats();
  CHECK(end.allocated == start.allocated + kBytes);
  CHECK(end.peak_allocated == start.allocated + 2 * kBytes);
  CHECK(end.reserved == start.reserved + 2 * kBytes);
  CHECK(end.misses == start.misses + 2);
  empty_cache();
  CHECK(memory_stats().reserved == start.reserved + kBytes);
  reset_peak_memory();
  CHECK(memory_stats().peak_allocated == memory_stats().allocated);
}

TEST_CASE("a size class wastes at most an eighth", "[memory]") {
  for (size_t bytes = 512; bytes < 100'000; bytes += 511) {
    const size_t before = memory_stats().allocated;
    const Storage block(bytes, kCpu);
    const size_t taken = memory_stats().allocated - before;
    CAPTURE(bytes, taken);
    CHECK(taken >= bytes);
    CHECK(taken <= bytes + bytes / 8);
  }
}

TEST_CASE("zero bytes are an address too", "[memory]") { CHECK(Storage(0, kCpu).data() != nullptr); }

TEST_CASE("the limit refuses with the numbers, empties the cache first, and is lifted by zero", "[memory]") {
  empty_cache();
  constexpr size_t kBytes = size_t{4} << 20;
  const size_t limit = memory_stats().reserved + kBytes;
  set_memory_limit(limit);
  { const Storage cached(kBytes / 2, kCpu); }
  {
    // Fits only because the cached half goes back to the system.
    const Storage whole(kBytes, kCpu);
    CHECK_THROWS_WITH(Storage(kBytes / 4, kCpu), ContainsSubstring(str("requested ", kBytes / 4, " bytes")) &&
                                                     ContainsSubstring(str("limit ", limit)) &&
                                                     ContainsSubstring("out of memory on cpu") &&
                                                     ContainsSubstring("smaller batch"));
  }
  set_memory_limit(0);
  CHECK_NOTHROW(Storage(2 * kBytes, kCpu));
  empty_cache();
}

TEST_CASE("a request no machine can serve is the same error, not a crash", "[memory]") {
  CHECK_THROWS_WITH(Tensor::empty({int64_t{1} << 59}), ContainsSubstring("out of memory on cpu"));
  CHECK_THROWS_WITH(Tensor::empty({int64_t{1} << 62}), ContainsSubstring("more bytes than 64 bits count"));
}

TEST_CASE("a GPU that is not there says what to do", "[memory]") {
  if (is_available({DeviceKind::cuda, 0})) return;
  CHECK_THROWS_WITH(Tensor::empty({1}, DType::f32, {DeviceKind::cuda, 0}), ContainsSubstring("use the cpu"));
}

}  // namespace monoid

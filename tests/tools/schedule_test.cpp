#include "monoid/tools/train/schedule.h"

#include "monoid/tests/support/catch.h"
#include "monoid/tools/text/progress.h"

using namespace monoid;

TEST_CASE("the learning rate warms up in a line and falls along a cosine", "[tools][schedule]") {
  const Schedule schedule{1e-3, 1e-4, 100, 1200};
  CHECK(schedule(0) == Approx(1e-5));
  CHECK(schedule(49) == Approx(5e-4));
  CHECK(schedule(99) == Approx(1e-3));
  CHECK(schedule(100) == Approx(1e-3));
  CHECK(schedule(650) == Approx(5.5e-4));
  CHECK(schedule(1199) == Approx(1e-4).epsilon(1e-4));
  CHECK(schedule(1200) == 1e-4);
  CHECK(schedule(99'999) == 1e-4);
  for (int64_t step = 100; step < 1200; ++step) REQUIRE(schedule(step + 1) < schedule(step));
}

TEST_CASE("a schedule may begin above 0", "[tools][schedule]") {
  const Schedule schedule{.peak = 1e-3, .floor = 1e-4, .warmup = 100, .end = 5000, .start = 2e-4};
  CHECK(schedule(0) == 2e-4);
  CHECK(schedule(50) == Approx(6e-4));
  CHECK(schedule(100) == Approx(1e-3));
  CHECK(schedule(5000) == 1e-4);
}

TEST_CASE("a schedule without warm-up, or shorter than it, is still one", "[tools][schedule]") {
  CHECK(Schedule{1e-3, 1e-4, 0, 10}(0) == 1e-3);
  CHECK(Schedule{1e-3, 1e-4, 20, 10}(9) == Approx(5e-4));
  CHECK(Schedule{1e-3, 1e-4, 20, 10}(20) == 1e-4);
}

TEST_CASE("durations and counts read as people write them", "[tools][schedule]") {
  CHECK(format_duration(0.4) == "0s");
  CHECK(format_duration(59.6) == "1m 00s");
  CHECK(format_duration(192) == "3m 12s");
  CHECK(format_duration(3 * 3600 + 125) == "3h 02m");
  CHECK(format_duration(-1) == "?");
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(6540.4) == "6,540");
  CHECK(format_count(11'125'632) == "11,125,632");
}

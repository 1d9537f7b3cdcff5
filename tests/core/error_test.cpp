#include "monoid/core/error.h"

#include <functional>
#include <memory>

#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

Error caught(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return Error("nothing was thrown");
}

}  // namespace

TEST_CASE("a failed check says its parts and the line that checked", "[error]") {
  const int line = __LINE__ + 1;
  const Error error = caught([] { check(1 > 2, "op: width is ", 3, ", wanted ", 4.5); });
  CHECK(error.message() == "op: width is 3, wanted 4.5");
  CHECK(error.site().line() == static_cast<unsigned>(line));
  CHECK(std::string(error.what()) == str(error.message(), " [tests/core/error_test.cpp:", line, "]"));
}

TEST_CASE("fail throws from the line that calls it", "[error]") {
  const int line = __LINE__ + 1;
  const Error error = caught([] { fail("op: no ", "luck"); });
  CHECK(error.message() == "op: no luck");
  CHECK(error.site().line() == static_cast<unsigned>(line));
}

TEST_CASE("a check that holds does nothing, whatever converts to bool", "[error]") {
  const std::unique_ptr<int> pointer = std::make_unique<int>(1);
  CHECK_NOTHROW(check(pointer, "not shown"));
  CHECK_NOTHROW(check(true, "not shown"));
  CHECK_THROWS_AS(check(std::unique_ptr<int>(), "shown"), Error);
}

TEST_CASE("nearest finds a misspelt word and stays silent about a different one", "[error]") {
  const std::vector<std::string> names = {"train", "generate", "evaluate", "width"};
  CHECK(nearest("tran", names) == "train");
  CHECK(nearest("genrate", names) == "generate");
  CHECK(nearest("widht", names) == "width");
  CHECK(nearest("train", names) == "train");
  CHECK(nearest("zzzzzzzzzzzz", names).empty());
  CHECK(nearest("x", {}).empty());
}

}  // namespace monoid

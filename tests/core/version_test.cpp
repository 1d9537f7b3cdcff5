#include "monoid/core/version.h"

#include "monoid/tests/support/catch.h"

namespace monoid {

TEST_CASE("the build names its version and its compiler", "[version]") {
  CHECK_THAT(build_info(), ContainsSubstring(std::string("monoid ") + kVersion));
  CHECK_THAT(build_info(), ContainsSubstring("g++ ") || ContainsSubstring("clang "));
}

}  // namespace monoid

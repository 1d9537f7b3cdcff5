#include "monoid/core/version.h"

#include "monoid/core/error.h"

namespace monoid {
namespace {

constexpr const char* kBuild =
#ifdef NDEBUG
    "release";
#else
    "debug";
#endif

std::string compiler() {
#if defined(__clang__)
  return str("clang ", __clang_major__, '.', __clang_minor__, '.', __clang_patchlevel__);
#elif defined(__GNUC__)
  return str("g++ ", __GNUC__, '.', __GNUC_MINOR__, '.', __GNUC_PATCHLEVEL__);
#else
  return "unknown compiler";
#endif
}

}  // namespace

std::string build_info() { return str("monoid ", kVersion, ", ", compiler(), ", ", kBuild); }

}  // namespace monoid

#pragma once

#include <string>

namespace monoid {

/// The one place that states the version; CMake reads it from here.
inline constexpr const char kVersion[] = "0.1.0";

/// "monoid 0.1.0, g++ 12.2.0, release": what a program prints for --version and a bug report quotes.
std::string build_info();

}  // namespace monoid

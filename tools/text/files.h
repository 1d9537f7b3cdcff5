#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace monoid {

/// The whole of a text file, unpacked if it is gzipped. Missing, unreadable, truncated or empty is an Error that
/// names the file.
std::string read_text(const std::filesystem::path& path);

/// CRC-32 of the text: tells whether a resumed run still sees the text it started on.
uint32_t checksum(std::string_view text);

/// Where monoid's own sources and presets are: $MONOID_SOURCE, else the tree this build came from, else
/// share/monoid beside the executable's folder. An Error says to set $MONOID_SOURCE.
std::filesystem::path source_root();

}  // namespace monoid

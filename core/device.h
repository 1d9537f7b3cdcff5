#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

namespace monoid {

enum class DeviceKind : uint8_t { cpu, cuda };
inline constexpr int kDeviceKinds = 2;

/// Where a tensor lives: the CPU, or one numbered GPU.
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;

  constexpr bool is_cpu() const { return kind == DeviceKind::cpu; }
  constexpr bool is_cuda() const { return kind == DeviceKind::cuda; }
  friend constexpr bool operator==(const Device&, const Device&) = default;

  /// Reads "cpu", "cuda" (= cuda:0) or "cuda:N"; anything else is an Error.
  static Device parse(std::string_view text);
};

inline constexpr Device kCpu{};

const char* name(DeviceKind kind);
std::ostream& operator<<(std::ostream& stream, DeviceKind kind);
std::ostream& operator<<(std::ostream& stream, const Device& device);

}  // namespace monoid

#include "monoid/core/device.h"

#include <charconv>
#include <ostream>

#include "monoid/core/error.h"

namespace monoid {

const char* name(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

std::ostream& operator<<(std::ostream& stream, DeviceKind kind) { return stream << name(kind); }

std::ostream& operator<<(std::ostream& stream, const Device& device) {
  stream << name(device.kind);
  return device.is_cpu() ? stream : stream << ':' << device.index;
}

Device Device::parse(std::string_view text) {
  if (text == "cpu") return {};
  if (text == "cuda") return {DeviceKind::cuda, 0};
  if (text.starts_with("cuda:")) {
    const std::string_view digits = text.substr(5);
    Device device{DeviceKind::cuda, 0};
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), device.index);
    if (error == std::errc{} && end == digits.data() + digits.size() && device.index >= 0) return device;
  }
  fail("device: '", text, "' is not a device; use cpu, cuda or cuda:N");
}

}  // namespace monoid

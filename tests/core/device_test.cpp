#include "monoid/core/device.h"

#include "monoid/core/error.h"
#include "monoid/core/memory.h"
#include "monoid/tests/support/catch.h"

namespace monoid {

TEST_CASE("devices are read as they are printed", "[device]") {
  CHECK(Device::parse("cpu") == kCpu);
  CHECK(Device::parse("cuda") == Device{DeviceKind::cuda, 0});
  CHECK(Device::parse("cuda:3") == Device{DeviceKind::cuda, 3});
  CHECK(str(kCpu) == "cpu");
  CHECK(str(Device{DeviceKind::cuda, 3}) == "cuda:3");
}

TEST_CASE("text that is no device is an error naming the choices", "[device]") {
  for (const char* text : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:99999999999", "cpu:0"}) {
    CAPTURE(text);
    CHECK_THROWS_WITH(Device::parse(text), ContainsSubstring("use cpu, cuda or cuda:N"));
  }
}

TEST_CASE("the CPU is there, and no device beyond those that exist", "[device]") {
  CHECK(is_available(kCpu));
  CHECK_FALSE(is_available({DeviceKind::cpu, 1}));
  CHECK_FALSE(is_available({DeviceKind::cuda, 1000}));
}

}  // namespace monoid

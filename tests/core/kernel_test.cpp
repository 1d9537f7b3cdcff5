#include "monoid/core/kernel.h"

#include <algorithm>
#include <string_view>

#include "monoid/core/copy.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

using Doubled = void(const Tensor& x, Tensor& y);

void doubled_on_cpu(const Tensor& x, Tensor& y) {
  for (int64_t i = 0; i < x.elements(); ++i) y.data<float>()[i] = 2 * x.data<float>()[i];
}

bool is_bound(const KernelSlot& slot) {
  return std::find(bound_slots().begin(), bound_slots().end(), &slot) != bound_slots().end();
}

constinit Kernel<Doubled> absent{"absent"};
constinit Kernel<Doubled> doubled{"doubled"};

}  // namespace

TEST_CASE("a slot without a kernel names itself and the device", "[kernel]") {
  Tensor y = Tensor::empty({1});
  CHECK_THROWS_WITH(absent(Tensor::ones({1}), y), ContainsSubstring("no cpu kernel for 'absent' in this build"));
  CHECK(absent.calls() == 0);
  CHECK_FALSE(absent.has(DeviceKind::cpu));
  CHECK_FALSE(is_bound(absent));
}

TEST_CASE("a bound kernel is called, counted and listed once", "[kernel]") {
  doubled.bind(DeviceKind::cpu, doubled_on_cpu);
  doubled.bind(DeviceKind::cpu, doubled_on_cpu);
  Tensor y = Tensor::empty({1});
  doubled(Tensor::full({1}, 4), y);
  CHECK(y.item() == 8);
  CHECK(doubled.calls() == 1);
  CHECK(doubled.has(DeviceKind::cpu));
  CHECK_FALSE(doubled.has(DeviceKind::cuda));
  CHECK(std::count(bound_slots().begin(), bound_slots().end(), &doubled) == 1);
}

TEST_CASE("every kernel of the build is bound without anyone asking, under a name of its own", "[kernel]") {
  CHECK(is_bound(kernels::copy));
  CHECK(is_bound(kernels::fill));
  CHECK(is_bound(kernels::accumulate));
  for (const KernelSlot* slot : bound_slots()) {
    CAPTURE(slot->name());
    // Saves launches, which the CPU has none of.
    const bool only_on_gpus = std::string_view(slot->name()) == "few_rows_linear";
    CHECK(slot->has(DeviceKind::cpu) == !only_on_gpus);
    CHECK(std::count_if(bound_slots().begin(), bound_slots().end(),
                        [&](const KernelSlot* other) { return std::string_view(other->name()) == slot->name(); }) == 1);
  }
}

}  // namespace monoid

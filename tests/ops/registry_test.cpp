#include "monoid/ops/registry.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "monoid/core/kernel.h"
#include "monoid/core/parallel.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/gradcheck.h"
#include "monoid/tests/support/run_sample.h"

namespace monoid::test {
namespace {

// Slots that no entry of the registry reaches, each with the reason.
const std::map<std::string, std::string> kOutsideTheRegistry = {
    {"adamw", "updates parameters in place; it has no outputs to differentiate"},
    {"copy_each", "moves the state of a decoder; no op"},
    {"few_rows_linear", "stands in for recorded ops where nothing records, on CUDA"},
    {"take_matrix_overflow", "asks what scans before it have met"},
    {"gradient_norms", "measures gradients; nothing is differentiated through it"},
};

// Calls visit(entry, sample) for the whole registry.
template <class Visit>
void for_each_sample(DType dtype, Visit visit) {
  for (const OpEntry& entry : op_registry()) {
    SampleMaker make(kSeed, dtype);
    for (const OpSample& sample : entry.samples(make)) {
      INFO(entry.name << ", " << sample.label);
      try {
        visit(entry, sample);
      } catch (const Error& error) {
        FAIL_CHECK(error.what());
      }
    }
  }
}

}  // namespace

TEST_CASE("every registered op has a name of its own and at least one sample", "[registry]") {
  std::set<std::string> names;
  for (const OpEntry& entry : op_registry()) {
    CAPTURE(entry.name);
    CHECK(names.insert(entry.name).second);
    SampleMaker make(kSeed);
    std::set<std::string> labels;
    for (const OpSample& sample : entry.samples(make)) {
      CAPTURE(sample.label);
      CHECK(labels.insert(sample.label).second);
    }
    CHECK_FALSE(labels.empty());
  }
}

TEST_CASE("gradients of every registered op agree with central differences", "[registry][gradient]") {
  for_each_sample(DType::f64, [](const OpEntry& entry, const OpSample& sample) {
    if (entry.differentiable) check_gradients(entry.name, sample);
  });
}

TEST_CASE("the tape holds only registered ops, and every differentiable one", "[registry]") {
  std::set<std::string> names;
  for (const OpEntry& entry : op_registry()) names.insert(entry.name);
  std::map<std::string, size_t> nodes;
  for_each_sample(DType::f64, [&](const OpEntry& entry, const OpSample& sample) {
    const std::vector<std::string> recorded = run(sample).recorded;
    nodes[entry.name] += recorded.size();
    for (const std::string& op : recorded) {
      CAPTURE(op);
      CHECK(names.count(op) == 1);
    }
  });
  for (const OpEntry& entry : op_registry()) {
    CAPTURE(entry.name);
    CHECK((nodes[entry.name] > 0) == entry.differentiable);
  }
}

TEST_CASE("f32 results and gradients are those of f64, rounded", "[registry]") {
  const auto close = [](const Tensor& narrow, const Tensor& wide) {
    check_close_in_norm(narrow.to(DType::f64), wide.to(DType::f64), 2e-5);
  };
  for (const OpEntry& entry : op_registry()) {
    SampleMaker narrow(kSeed, DType::f32), wide(kSeed, DType::f64);
    const auto in_f32 = entry.samples(narrow), in_f64 = entry.samples(wide);
    REQUIRE(in_f32.size() == in_f64.size());
    for (size_t i = 0; i < in_f32.size(); ++i) {
      INFO(entry.name << ", " << in_f32[i].label);
      const Results a = run(in_f32[i]), b = run(in_f64[i]);
      for_each_pair(a.outputs, b.outputs, close);
      for_each_pair(a.gradients, b.gradients, close);
    }
  }
}

TEST_CASE("results and gradients have the same bits with one thread and with four", "[registry]") {
  const int before = threads();
  for_each_sample(DType::f32, [](const OpEntry&, const OpSample& sample) {
    set_threads(1);
    const Results one = run(sample);
    set_threads(4);
    const Results four = run(sample);
    for_each_pair(one.outputs, four.outputs, check_identical);
    for_each_pair(one.gradients, four.gradients, check_identical);
  });
  set_threads(before);
}

TEST_CASE("the registry reaches every kernel", "[registry]") {
  std::map<std::string, uint64_t> before;
  bind_kernels_once();
  for (const KernelSlot* slot : bound_slots()) before[slot->name()] = slot->calls();
  for_each_sample(DType::f32, [](const OpEntry&, const OpSample& sample) { run(sample); });
  for (const KernelSlot* slot : bound_slots()) {
    CAPTURE(slot->name());
    if (kOutsideTheRegistry.count(slot->name()) == 0) CHECK(slot->calls() > before[slot->name()]);
  }
}

}  // namespace monoid::test

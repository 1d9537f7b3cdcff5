// The parity contract of the CUDA backend: the whole op registry, forward and backward, against the CPU in f64.

#include <algorithm>
#include <cmath>
#include <map>

#include "monoid/core/kernel.h"
#include "monoid/core/stream.h"
#include "monoid/ops/registry.h"
#include "monoid/tests/support/cuda.h"
#include "monoid/tests/support/run_sample.h"

namespace monoid::test {
namespace {

// Of the largest value, or of 1e-3 where all are smaller. f32: as the CPU's own f32 against f64. bf16: every op between
// a sample's inputs and results rounds what it stores, and a gradient from a stored sigmoid near 1 sees only that.
constexpr double kTolerance32 = 2e-5, kTolerance16 = 5e-2, kSmall = 1e-3;

// Calls visit(sample on CUDA in `dtype`, the same on the CPU in f64 from the same numbers) for the whole registry.
template <class Visit>
void for_each_twin(DType dtype, Visit visit) {
  for (const OpEntry& entry : op_registry()) {
    SampleMaker on_cuda(kSeed, dtype, kCuda), on_cpu(kSeed, DType::f64);
    const auto cuda_samples = entry.samples(on_cuda);
    auto cpu_samples = entry.samples(on_cpu);
    REQUIRE(cuda_samples.size() == cpu_samples.size());
    for (size_t i = 0; i < cpu_samples.size(); ++i) {
      INFO(entry.name << ", " << cpu_samples[i].label);
      for (Tensor& input : cpu_samples[i].inputs) {
        if (input.defined() && is_floating(input.dtype())) input = input.to(dtype).to(DType::f64);
      }
      try {
        visit(cuda_samples[i], cpu_samples[i]);
      } catch (const Error& error) {
        FAIL_CHECK(error.what());
      }
    }
  }
}

// The results of the CPU; none where a product needs a library that is not installed.
bool run_reference(const OpSample& sample, const Cotangents& cotangents, Results& results) {
  try {
    results = run(sample, cotangents);
    return true;
  } catch (const Error& error) {
    if (std::string(error.what()).find("OpenBLAS is not installed") == std::string::npos) throw;
    WARN("skipped: " << sample.label << " needs OpenBLAS for its reference");
    return false;
  }
}

void check_parity(DType dtype, double tolerance) {
  const Cotangents cotangents = [dtype](const Tensors& outputs) { return random_cotangents(outputs, dtype); };
  const auto close = [tolerance](const Tensor& actual, const Tensor& expected) {
    double largest = kSmall;
    for (double value : expected.to_vector<double>()) {
      if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
    }
    check_close(actual.to(kCpu).to(DType::f64), expected.to(DType::f64), 0, tolerance * largest);
  };
  for_each_twin(dtype, [&](const OpSample& on_cuda, const OpSample& on_cpu) {
    Results expected;
    if (!run_reference(on_cpu, cotangents, expected)) return;
    const Results actual = run(on_cuda, cotangents);
    CHECK(actual.recorded == expected.recorded);
    for_each_pair(actual.outputs, expected.outputs, close);
    for_each_pair(actual.gradients, expected.gradients, close);
  });
}

void check_same(const Results& a, const Results& b) {
  for_each_pair(a.outputs, b.outputs, check_identical);
  for_each_pair(a.gradients, b.gradients, check_identical);
}

}  // namespace

TEST_CASE("every kernel of the CPU has one on CUDA", "[cuda][registry]") {
  if (!cuda_or_skip()) return;
  for (const KernelSlot* slot : bound_slots()) {
    CAPTURE(slot->name());
    CHECK(slot->has(DeviceKind::cuda));
  }
}

TEST_CASE("every op on CUDA in f32 agrees with the CPU in f64, forward and backward", "[cuda][registry]") {
  if (!cuda_or_skip()) return;
  check_parity(DType::f32, kTolerance32);
}

TEST_CASE("every op on CUDA in bf16 agrees with the CPU on the same numbers", "[cuda][registry]") {
  if (!cuda_or_skip()) return;
  check_parity(DType::bf16, kTolerance16);
}

TEST_CASE("every op on CUDA gives the same bits every time", "[cuda][registry]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for_each_twin(dtype, [](const OpSample& sample, const OpSample&) {
      const Results first = run(sample);
      for (int repeat = 1; repeat < 20; ++repeat) check_same(run(sample), first);
    });
  }
}

TEST_CASE("every op on CUDA can be captured, and its replay is what it computes eagerly", "[cuda][registry]") {
  if (!cuda_or_skip()) return;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for_each_twin(dtype, [](const OpSample& sample, const OpSample&) {
      Tensors cotangents;
      const Results eager =
          run(sample, [&](const Tensors& outputs) { return cotangents = random_cotangents(outputs); });
      Results captured;
      const Graph graph(kCuda, [&] { captured = run(sample, [&](const Tensors&) { return cotangents; }); });
      for (int replay = 0; replay < 2; ++replay) {
        graph.replay();
        check_same(captured, eager);
      }
    });
  }
}

}  // namespace monoid::test

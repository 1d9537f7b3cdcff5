#include "monoid/tools/bench/report.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "monoid/core/parallel.h"
#include "monoid/core/version.h"
#include "monoid/kernels/cpu/blas.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::bench {
namespace {

// 1.23 G, 45.6 M, 789: three digits and a metric prefix.
std::string metric(double value) {
  const char* prefixes[] = {"", " k", " M", " G", " T"};
  size_t prefix = 0;
  while (value >= 1000 && prefix + 1 < std::size(prefixes)) {
    value /= 1000;
    ++prefix;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f%s" : value < 100 ? "%.1f%s" : "%.0f%s", value, prefixes[prefix]);
  return text;
}

std::string rate(double amount, double seconds) { return amount > 0 ? metric(amount / seconds) : "-"; }

}  // namespace

bool Reporter::ReportContext(const Context&) { return true; }

void print_header() {
  std::printf("%-36s %-38s %12s %9s %9s %9s %8s %8s\n", "case", "shape", "median", "item/s", "B/s", "FLOP/s",
              "of floor", "error");
}

void Reporter::ReportRuns(const std::vector<Run>& runs) {
  for (const Run& run : runs) {
    const bool is_median = run.run_type == Run::RT_Aggregate && run.aggregate_name == "median";
    if (!is_median && run.repetitions > 1) continue;  // a single run has no aggregates
    const Case& item = cases_.at(static_cast<size_t>(run.family_index));
    Result result{item.name, item.shape, run.GetAdjustedRealTime() * 1e-9, item.bytes, item.flops, item.items,
                  0,         item.error};
    result.fraction = ceiling_.floor(item.bytes, item.flops) / result.seconds;
    char fraction[16] = "-";
    if (result.fraction > 0) std::snprintf(fraction, sizeof fraction, "%.0f%%", 100 * result.fraction);
    char error[16] = "-";
    if (result.error >= 0) std::snprintf(error, sizeof error, "%.0e", result.error);
    std::printf("%-36s %-38s %9.4f ms %9s %9s %9s %8s %8s\n", item.name.c_str(), item.shape.c_str(),
                result.seconds * 1e3, rate(item.items, result.seconds).c_str(),
                rate(item.bytes, result.seconds).c_str(), rate(item.flops, result.seconds).c_str(), fraction, error);
    std::fflush(stdout);
    results_.push_back(std::move(result));
  }
}

std::string to_json(const Target& target, const Ceiling& ceiling, const std::vector<Result>& results) {
  nlohmann::ordered_json root;
  root["version"] = kVersion;
  root["device"] = str(target.device);
  root["dtype"] = name(target.dtype);
  root["blas"] = cpu::blas_description();
  root["isa"] = cpu::name(cpu::isa());
  root["threads"] = threads();
  root["ceiling"] = {{"bytes_per_second", ceiling.bytes_per_second}, {"flops_per_second", ceiling.flops_per_second}};
  for (const Result& result : results) {
    root["cases"].push_back({{"name", result.name},
                             {"shape", result.shape},
                             {"seconds", result.seconds},
                             {"bytes", result.bytes},
                             {"flops", result.flops},
                             {"items", result.items},
                             {"fraction_of_floor", result.fraction},
                             {"error", result.error}});
  }
  return root.dump(2) + "\n";
}

}  // namespace monoid::bench

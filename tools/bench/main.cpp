// bench: times kernels, ops and whole training steps, and sets each time against the floor of this machine.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <regex>

#include "monoid/core/parallel.h"
#include "monoid/core/runtime.h"
#include "monoid/core/safetensors.h"
#include "monoid/tools/bench/report.h"

namespace {

using namespace monoid;
using namespace monoid::bench;

struct Options {
  std::string filter = ".*";
  std::string json;
  int threads = 0;
  int repetitions = 5;
  double seconds = 0.2;
  bool list = false;
  bool registry = false;
  std::string device = "cpu", dtype = "f32";
  bool verify = true;

  Target target() const { return {Device::parse(device), parse_dtype(dtype), verify}; }
};

Options parse(int argc, char** argv) {
  Options options;
  CLI::App app{"Times monoid's kernels, ops and training steps against the floor of this machine"};
  app.add_option("--filter", options.filter, "Only cases whose name matches this regular expression");
  app.add_option("--json", options.json, "Also write the results to this file");
  app.add_option("--threads", options.threads, "CPU threads (default: all)")->check(CLI::PositiveNumber);
  app.add_option("--repetitions", options.repetitions,
                 "Repetitions the median is taken over; the first is slower, with memory that is new")
      ->check(CLI::PositiveNumber);
  app.add_option("--seconds", options.seconds, "Least time of one repetition")->check(CLI::PositiveNumber);
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  app.add_option("--dtype", options.dtype, "f32, or bf16 on cuda");
  app.add_flag("--verify,!--no-verify", options.verify, "On cuda, compare each case with the CPU in f64 first");
  app.add_flag("--registry", options.registry, "Time every sample of the op registry instead");
  app.add_flag("--list", options.list, "List the cases and stop");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error));
  }
  return options;
}

std::vector<CaseMaker> selected(const Options& options) {
  std::vector<CaseMaker> chosen;
  const std::regex filter(options.filter);
  std::vector<std::vector<CaseMaker>> families;
  if (options.registry) {
    families = {registry_cases()};
  } else {
    families = {gemm_cases(),     scan_cases(),      gate_loop_cases(), matrix_scan_cases(),
                layer_op_cases(), attention_cases(), model_cases()};
  }
  for (const auto& family : families) {
    for (const CaseMaker& maker : family) {
      if (std::regex_search(maker.name, filter)) chosen.push_back(maker);
    }
  }
  check(!chosen.empty(), "bench: no case matches '", options.filter, "'; --list shows them");
  return chosen;
}

// A wrong kernel's time means nothing.
void check_errors(const std::vector<Case>& cases, const Target& target) {
  const double tolerance = target.dtype == DType::bf16 ? 3e-2 : 1e-4;
  for (const Case& item : cases) {
    check(item.error <= tolerance, "bench: ", item.name, " ", item.shape, " is off by ", item.error,
          " of the largest value from the CPU in f64, more than ", tolerance);
  }
}

// One group at a time, so that its tensors are freed before the next allocates.
std::vector<Result> run(const CaseMaker& maker, const Ceiling& ceiling, const Options& options) {
  const std::vector<Case> cases = maker.make(options.target());
  check_errors(cases, options.target());
  benchmark::ClearRegisteredBenchmarks();
  for (const Case& item : cases) {
    auto* registered = benchmark::RegisterBenchmark(item.name.c_str(), [&item](benchmark::State& state) {
      for (auto _ : state) {
        if (item.timed) {
          state.SetIterationTime(item.timed());
        } else {
          item.run();
        }
      }
    });
    // What the device times is one replay of many calls, counted as the time of one: ten of them say enough.
    (item.timed ? registered->UseManualTime()->Iterations(10) : registered->UseRealTime()->MinTime(options.seconds))
        ->Unit(benchmark::kNanosecond)
        ->Repetitions(options.repetitions)
        ->ReportAggregatesOnly();
  }
  Reporter reporter(ceiling, cases);
  benchmark::RunSpecifiedBenchmarks(&reporter);
  return reporter.results();
}

int run_all(const Options& options) {
  if (options.threads) set_threads(options.threads);
  const std::vector<CaseMaker> makers = selected(options);
  runtime(options.target().device);  // a GPU that cannot be used is an Error
  if (options.list) {
    for (const CaseMaker& maker : makers) std::printf("%s\n", maker.name.c_str());
    return 0;
  }
  const Target target = options.target();
  const Ceiling ceiling = measure_ceiling(target);
  std::printf("%s, %s, %d CPU threads; ceiling: copy %.1f GB/s, matrix product %.1f GFLOP/s\n\n",
              str(target.device).c_str(), name(target.dtype), threads(), ceiling.bytes_per_second / 1e9,
              ceiling.flops_per_second / 1e9);
  print_header();
  std::vector<Result> results;
  for (const CaseMaker& maker : makers) {
    for (Result& result : run(maker, ceiling, options)) results.push_back(std::move(result));
  }
  if (!options.json.empty()) write_file_atomically(options.json, to_json(target, ceiling, results));
  return 0;
}

}  // namespace

int main(int argc, char** argv) try { return run_all(parse(argc, argv)); } catch (const monoid::Error& error) {
  std::fprintf(stderr, "bench: %s\n", error.message().c_str());
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench: %s\n", error.what());
  return 1;
}

// bench: times kernels, ops and whole training steps, and sets each time against the floor of this machine.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <regex>

#include "monoid/core/parallel.h"
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
};

Options parse(int argc, char** argv) {
  Options options;
  CLI::App app{"Times monoid's kernels, ops and training steps against the floor of this machine"};
  app.add_option("--filter", options.filter, "Only cases whose name matches this regular expression");
  app.add_option("--json", options.json, "Also write the results to this file");
  app.add_option("--threads", options.threads, "CPU threads (default: all)")->check(CLI::PositiveNumber);
  app.add_option("--repetitions", options.repetitions, "Repetitions the median is taken over")
      ->check(CLI::PositiveNumber);
  app.add_option("--seconds", options.seconds, "Least time of one repetition")->check(CLI::PositiveNumber);
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
    families = {gemm_cases(), scan_cases(), layer_op_cases(), model_cases()};
  }
  for (const auto& family : families) {
    for (const CaseMaker& maker : family) {
      if (std::regex_search(maker.name, filter)) chosen.push_back(maker);
    }
  }
  check(!chosen.empty(), "bench: no case matches '", options.filter, "'; --list shows them");
  return chosen;
}

// One group at a time, so that its tensors are freed before the next allocates.
std::vector<Result> run(const CaseMaker& maker, const Ceiling& ceiling, const Options& options) {
  const std::vector<Case> cases = maker.make();
  benchmark::ClearRegisteredBenchmarks();
  for (const Case& item : cases) {
    benchmark::RegisterBenchmark(item.name.c_str(),
                                 [&item](benchmark::State& state) {
                                   for (auto _ : state) item.run();
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kNanosecond)
        ->MinTime(options.seconds)
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
  if (options.list) {
    for (const CaseMaker& maker : makers) std::printf("%s\n", maker.name.c_str());
    return 0;
  }
  const Ceiling ceiling = measure_ceiling();
  std::printf("%d threads; ceiling: copy %.1f GB/s, matrix product %.1f GFLOP/s\n\n", threads(),
              ceiling.bytes_per_second / 1e9, ceiling.flops_per_second / 1e9);
  print_header();
  std::vector<Result> results;
  for (const CaseMaker& maker : makers) {
    for (Result& result : run(maker, ceiling, options)) results.push_back(std::move(result));
  }
  if (!options.json.empty()) write_file_atomically(options.json, to_json(ceiling, results));
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

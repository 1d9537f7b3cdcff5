#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "monoid/tools/bench/cases.h"
#include "monoid/tools/bench/ceiling.h"

namespace monoid::bench {

/// One timed case: its median and what that means against the floor.
struct Result {
  std::string name, shape;
  double seconds = 0;  // median over repetitions
  double bytes = 0, flops = 0, items = 0;
  double fraction = 0;  // floor / seconds; 0 where the case has no floor
  double error = -1;    // against the CPU in f64; -1: not compared
};

/// The heading of the table.
void print_header();

/// Prints one line a case as it finishes and keeps the results for the JSON file.
class Reporter : public benchmark::BenchmarkReporter {
 public:
  Reporter(const Ceiling& ceiling, const std::vector<Case>& cases) : ceiling_(ceiling), cases_(cases) {}

  bool ReportContext(const Context&) override;  // the table has one heading, not one a group
  void ReportRuns(const std::vector<Run>& runs) override;

  const std::vector<Result>& results() const { return results_; }

 private:
  const Ceiling& ceiling_;
  const std::vector<Case>& cases_;
  std::vector<Result> results_;
};

/// The results as JSON text: machine, threads, ceiling and one object a case.
std::string to_json(const Target& target, const Ceiling& ceiling, const std::vector<Result>& results);

}  // namespace monoid::bench

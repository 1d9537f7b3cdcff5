// parity FILE...: does monoid compute what the reference implementation computed?

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "monoid/tools/parity/compare.h"
#include "monoid/tools/text/command_line.h"

namespace monoid::parity {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string device = "cpu";
  std::string dtype;
  double tolerance = 0;
};

void print_table(const std::vector<Row>& rows) {
  size_t width = 0;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  for (const Row& row : rows) {
    const bool has_number = row.verdict != Verdict::wrong_shape && row.verdict != Verdict::not_recomputed;
    std::printf("  %-*s  ", static_cast<int>(width), row.name.c_str());
    if (has_number)
      std::printf("%9.2e", row.difference);
    else
      std::printf("%9s", "-");
    std::printf("  %s\n", text(row.verdict));
  }
}

// Prints one file's table; true if everything in it was recomputed and agrees.
bool check_file(const std::string& file, const Target& target, double wanted_tolerance) {
  try {
    const Golden golden = Golden::read(file);
    const double tolerance = wanted_tolerance > 0 ? wanted_tolerance : default_tolerance(target.dtype, golden);
    std::cout << file << "  (" << golden.source << ", " << target.dtype << " on " << target.device << ", tolerance "
              << tolerance << ")" << std::endl;
    const std::vector<Row> rows = compare(golden, recompute(golden, target), tolerance);
    check(!rows.empty(), "the golden file has nothing to compare: no out/, grad/ or grad_in/ tensor");
    print_table(rows);
    std::fflush(stdout);
    return all_agree(rows);
  } catch (const Error& error) {
    std::cout.flush();
    std::cerr << "parity: " << file << ": " << error.message() << std::endl;
    return false;
  }
}

int run(const Options& options) {
  Target target{.device = Device::parse(options.device)};
  target.dtype = !options.dtype.empty()    ? parse_dtype(options.dtype)
                 : target.device.is_cuda() ? DType::f32
                                           : DType::f64;
  size_t agreeing = 0;
  for (const std::string& file : options.files) agreeing += check_file(file, target, options.tolerance);
  std::cout << agreeing << " of " << options.files.size() << " files agree" << std::endl;
  return agreeing == options.files.size() ? 0 : 1;
}

}  // namespace
}  // namespace monoid::parity

int main(int count, char** arguments) {
  return monoid::run_tool("parity", [&] {
    monoid::parity::Options options;
    CLI::App app("Recomputes golden files of the reference implementations and compares every tensor.", "parity");
    app.add_option("files", options.files, "golden .safetensors files")->required();
    app.add_option("--device", options.device, "cpu, cuda or cuda:N")->capture_default_str();
    app.add_option("--dtype", options.dtype, "f64, f32 or bf16 (default: f64 on the CPU, f32 on CUDA)");
    app.add_option("--tolerance", options.tolerance,
                   "largest max|difference| / max|reference| (default: 1e-6 in f64, 1e-4 in f32, 3e-2 in bf16, and "
                   "1e-5 in f64 where the reference rounded to f32)")
        ->check(CLI::PositiveNumber);
    monoid::add_version(app);
    if (const std::optional<int> done = monoid::parse_command_line(app, count, arguments)) return *done;
    return monoid::parity::run(options);
  });
}

#include "monoid/tools/text/command_line.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "monoid/core/error.h"
#include "monoid/core/runtime.h"
#include "monoid/core/version.h"
#include "monoid/kernels/cpu/blas.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid {
namespace {

// "--steps=10" -> "--steps"
std::string flag_name(const std::string& argument) { return argument.substr(0, argument.find('=')); }

std::string unknown_argument(const CLI::App& app, const std::string& argument) {
  if (!argument.starts_with("-")) return "does not know what '" + argument + "' is for";
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  const std::string near = nearest(flag_name(argument), names);
  return "unknown flag " + flag_name(argument) +
         (near.empty() ? "; --help lists them" : "; did you mean " + near + "?");
}

}  // namespace

int run_tool(const char* tool, const std::function<int()>& body) {
  const auto report = [&](const std::string& sentence) {
    std::cout.flush();
    std::cerr << tool << ": " << sentence << std::endl;
    return kExitFailure;
  };
  try {
    return body();
  } catch (const Error& error) {
    return report(error.message());
  } catch (const std::bad_alloc&) {
    return report("out of memory");
  } catch (const std::exception& error) {
    return report(error.what());
  }
}

std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  const auto mistake = [&](const std::string& sentence) {
    std::cerr << app.get_name() << ": " << sentence << std::endl;
    return kExitUsage;
  };
  app.allow_extras();
  for (CLI::Option* option : app.get_options()) {
    // A flag given again overrides: scripts add to each other's command lines.
    if (option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw) option->take_last();
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    return mistake(error.what());
  }
  const std::vector<std::string> unknown = app.remaining();
  if (!unknown.empty()) return mistake(unknown_argument(app, unknown.front()));
  return std::nullopt;
}

void add_version(CLI::App& app) {
  app.add_flag_callback(
      "--version",
      [] {
        std::cout << build_info() << "\nCPU kernels: " << cpu::name(cpu::isa())
                  << "\nmatrix products: " << cpu::blas_description() << "\nGPU: " << describe_backend(DeviceKind::cuda)
                  << std::endl;
        throw CLI::Success();
      },
      "Version, instruction set, BLAS and GPUs");
}

}  // namespace monoid

#pragma once

#include <functional>
#include <optional>

namespace CLI {
class App;
}

namespace monoid {

inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

/// Runs a tool's body. Whatever it throws becomes one sentence on stderr and a non-zero exit.
int run_tool(const char* tool, const std::function<int()>& body);

/// Reads the command line into what `app` is bound to. Returns the exit code if the program is done: 0 after --help or
/// --version, 2 after a mistake, which is explained with the nearest valid flag.
std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv);

/// Adds --version, which prints the version, the instruction set and the BLAS in use.
void add_version(CLI::App& app);

}  // namespace monoid

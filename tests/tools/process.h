#pragma once

#include <fcntl.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/temporary_folder.h"

namespace monoid::test {

using Arguments = std::vector<std::string>;

struct ProcessOptions {
  std::string input = {};                 // standard input
  std::optional<rlim_t> file_limit = {};  // the largest file it may write, in bytes: a disk that fills up
};

struct ProcessResult {
  int code;  // exit code, or 128 + signal
  std::string out, err;
};

/// One of the tools in build/bin, running.
class Process {
 public:
  Process(const std::string& tool, const Arguments& arguments, const ProcessOptions& options = {}) {
    write_file(folder_ / "in", options.input);
    Arguments words{std::string(MONOID_BINARY_DIR) + "/bin/" + tool};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string in = folder_ / "in", out = folder_ / "out", err = folder_ / "err";
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ > 0) return;
    const auto redirect = [](const std::string& path, int flags, int descriptor) {
      dup2(open(path.c_str(), flags, 0600), descriptor);
    };
    redirect(in, O_RDONLY, STDIN_FILENO);
    redirect(out, O_WRONLY | O_CREAT, STDOUT_FILENO);
    redirect(err, O_WRONLY | O_CREAT, STDERR_FILENO);
    if (options.file_limit) {
      const rlimit limit{*options.file_limit, *options.file_limit};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void kill(int signal) { REQUIRE(::kill(pid_, signal) == 0); }

  ProcessResult wait() {
    int status = 0;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(folder_ / "out"),
            read_file(folder_ / "err")};
  }

 private:
  TemporaryFolder folder_;
  pid_t pid_ = -1;
};

inline ProcessResult run(const std::string& tool, const Arguments& arguments, const ProcessOptions& options = {}) {
  return Process(tool, arguments, options).wait();
}

/// Runs a tool that must succeed, and returns what it printed.
inline std::string run_well(const std::string& tool, const Arguments& arguments, const ProcessOptions& options = {}) {
  const ProcessResult result = run(tool, arguments, options);
  CAPTURE(tool, arguments, result.out, result.err);
  REQUIRE(result.code == 0);
  CHECK(result.err.empty());
  return result.out;
}

/// Runs a tool that must fail with a sentence that has all the `parts`.
inline void run_badly(const std::string& tool, const Arguments& arguments, const std::vector<std::string>& parts,
                      const ProcessOptions& options = {}) {
  const ProcessResult result = run(tool, arguments, options);
  CAPTURE(tool, arguments, result.out, result.err);
  CHECK((result.code == 1 || result.code == 2));
  CHECK(result.err.starts_with(tool + ": "));
  // What follows the sentence is an indented list, such as the tensors that do not fit.
  for (size_t end = result.err.find('\n'); end != std::string::npos && end + 1 < result.err.size();
       end = result.err.find('\n', end + 1)) {
    CHECK(result.err.compare(end + 1, 2, "  ") == 0);
  }
  for (const std::string& part : parts) CHECK_THAT(result.err, ContainsSubstring(part));
}

/// Runs a tool on a terminal and returns what it showed.
inline std::string run_on_terminal(const std::string& tool, const Arguments& arguments) {
  Arguments words{std::string(MONOID_BINARY_DIR) + "/bin/" + tool};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int terminal = -1;
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, nullptr);
  REQUIRE(pid >= 0);
  if (pid == 0) {
    execv(argv[0], argv.data());
    _exit(127);
  }
  std::string shown(1 << 16, '\0');
  size_t size = 0;
  for (ssize_t count = 1; count > 0; size += static_cast<size_t>(count > 0 ? count : 0)) {
    if (size == shown.size()) shown.resize(2 * size);
    count = read(terminal, shown.data() + size, shown.size() - size);  // fails once the process has ended
  }
  close(terminal);
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  return shown.substr(0, size);
}

/// A text of `size` characters over a few words, the same every time.
inline std::string some_text(size_t size) {
  const char* const words[] = {"the ", "scan ", "of ", "a ", "monoid ", "is\n", "an ", "answer, "};
  std::string text;
  for (uint32_t state = 1; text.size() < size; state = state * 1664525u + 1013904223u) text += words[state >> 29];
  return text.substr(0, size);
}

/// Flags of a run that takes a moment: a tiny model on the text in `folder`.
inline Arguments tiny_run(const TemporaryFolder& folder, const std::string& out, const Arguments& more = {}) {
  if (!std::filesystem::exists(folder / "text.txt")) write_file(folder / "text.txt", some_text(3000));
  Arguments arguments{"--data",          (folder / "text.txt").string(),
                      "--out",           (folder / out).string(),
                      "--set",           "dim=8",
                      "--set",           "depth=2",
                      "--set",           "enable_conv=true",
                      "--batch-size",    "2",
                      "--context",       "16",
                      "--warmup",        "2",
                      "--log-every",     "1",
                      "--sample-length", "20",
                      "--threads",       "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

}  // namespace monoid::test

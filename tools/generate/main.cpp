#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <iterator>
#include <sstream>

#include "monoid/core/parallel.h"
#include "monoid/tools/text/command_line.h"
#include "monoid/tools/text/files.h"
#include "monoid/tools/text/generation.h"
#include "monoid/tools/text/trained.h"

namespace monoid {
namespace {

// A terminal is not read: without --prompt, text comes from a pipe or from nowhere.
std::string piped_prompt() {
  if (isatty(STDIN_FILENO)) return {};
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

std::vector<std::string> lines_of(const std::string& file) {
  std::vector<std::string> lines;
  std::istringstream text(read_text(file));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

int generate_text(int argc, const char* const* argv) {
  std::string checkpoint, prompt, prompts, device = "cpu";
  int64_t length = 500, seed = 1337, threads = 0;
  SamplingOptions sampling;

  CLI::App app("Continues a text with a trained model, one token at a time from the recurrent state.", "generate");
  app.get_formatter()->column_width(30);
  app.add_option("--checkpoint", checkpoint, "Run folder or checkpoint folder of train")->required();
  const CLI::Option* given = app.add_option("--prompt", prompt, "Text to continue (default: standard input)");
  app.add_option("--prompts", prompts, "A file with a prompt a line, continued together; --- comes between the texts");
  app.add_option("--length", length, "Tokens to write")->capture_default_str();
  app.add_option("--temperature", sampling.temperature, "0: always the likeliest token")->capture_default_str();
  app.add_option("--top-k", sampling.top_k, "Keep this many of the likeliest tokens (0: all)")->capture_default_str();
  app.add_option("--top-p", sampling.top_p, "Keep the likeliest tokens that sum to this")->capture_default_str();
  app.add_option("--top-fraction", sampling.top_fraction, "Keep this part of the vocabulary (0.1: the likeliest tenth)")
      ->capture_default_str();
  app.add_option("--seed", seed, "Fixes the text")->capture_default_str();
  app.add_option("--device", device, "cpu or cuda")->capture_default_str();
  app.add_option("--threads", threads, "CPU threads (0: as many as the machine has)")->capture_default_str();
  add_version(app);
  if (const auto done = parse_command_line(app, argc, argv)) return *done;
  sampling.validate();
  if (threads > 0) set_threads(static_cast<int>(threads));

  const Trained trained = load_trained(checkpoint, Device::parse(device));
  if (!prompts.empty()) {
    check(given->count() == 0, "--prompt and --prompts are both given; use one");
    const std::vector<std::string> starts = lines_of(prompts);
    const std::vector<std::string> texts = generate_all(*trained.model, trained.vocabulary, starts, length, sampling,
                                                        Generator(static_cast<uint64_t>(seed)));
    for (size_t i = 0; i < texts.size(); ++i) std::cout << (i ? "---\n" : "") << starts[i] << texts[i] << std::endl;
    return 0;
  }
  if (given->count() == 0) prompt = piped_prompt();
  std::cout << prompt << std::flush;
  Generator generator(static_cast<uint64_t>(seed));
  generate(*trained.model, trained.vocabulary, prompt, length, sampling, generator,
           [](const std::string& text) { return static_cast<bool>(std::cout << text << std::flush); });
  std::cout << std::endl;
  return 0;
}

}  // namespace
}  // namespace monoid

int main(int argc, char** argv) {
  return monoid::run_tool("generate", [&] { return monoid::generate_text(argc, argv); });
}

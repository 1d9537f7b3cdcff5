#include <CLI/CLI.hpp>
#include <iostream>

#include "monoid/tools/convert/convert.h"
#include "monoid/tools/text/command_line.h"

namespace monoid {
namespace {

int convert_checkpoint(int argc, const char* const* argv) {
  ConvertOptions options;
  CLI::App app(
      "Turns a PyTorch checkpoint of a reference (.safetensors with its own names) into a checkpoint folder of\n"
      "monoid's, or such a folder back into a file: what INPUT is decides.",
      "convert");
  app.get_formatter()->column_width(30);
  app.add_option("input", options.input, "A reference's .safetensors file, or a checkpoint or run folder")->required();
  app.add_option("--out", options.out, "The checkpoint folder, or the file, to write")->required();
  app.add_option("--source", options.source, "The reference (default: what the file says, or the one that fits)");
  app.add_option("--config", options.config,
                 "JSON of the model's arguments, by the reference's names (default: what the file says, or config.json "
                 "beside it)");
  app.add_option("--prefix", options.prefix, "What all names of the file begin with, such as module.");
  app.add_option("--vocab", options.vocab, "byte, or a vocab.json of train's: how generate and eval read text");
  app.add_flag("--overwrite", options.overwrite, "Replace what is at --out");
  add_version(app);
  app.footer([] {
    std::string references = "References:";
    for (const std::string& source : convertible_sources()) references += "\n  " + source;
    return references;
  });
  if (const auto done = parse_command_line(app, argc, argv)) return *done;
  std::cout << convert(options) << std::endl;
  return 0;
}

}  // namespace
}  // namespace monoid

int main(int argc, char** argv) {
  return monoid::run_tool("convert", [&] { return monoid::convert_checkpoint(argc, argv); });
}

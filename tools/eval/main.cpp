#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>

#include "monoid/core/error.h"
#include "monoid/core/parallel.h"
#include "monoid/tools/text/command_line.h"
#include "monoid/tools/text/dataset.h"
#include "monoid/tools/text/evaluation.h"
#include "monoid/tools/text/trained.h"

namespace monoid {
namespace {

struct EvalOptions {
  std::string checkpoint, data, dataset, data_dir, part, device = "cpu";
  int64_t context = 0, batch_size = 16, threads = 0;
  double val_fraction = 0;
  bool carry_state = false;
};

// A file is read whole, a dataset's validation part only, unless --part says otherwise.
std::span<const Token> chosen_part(const EvalOptions& options, const Text& text, std::span<const Token> tokens) {
  const std::string part = !options.part.empty() ? options.part : options.data.empty() ? "validation" : "all";
  if (part == "all") return tokens;
  const bool custom = options.val_fraction > 0;
  const Split split =
      split_tokens(tokens, custom ? options.val_fraction : text.validation_fraction, custom ? 0 : text.test_fraction);
  if (part == "train") return split.train;
  if (part == "validation") return split.validation;
  check(part == "test", "--part is '", part, "', wanted all, train, validation or test");
  return split.test;
}

int evaluate_checkpoint(int argc, const char* const* argv) {
  EvalOptions options;
  CLI::App app("Measures a trained model on a text: mean loss in nats and bits per character.", "eval");
  app.get_formatter()->column_width(30);
  app.add_option("--checkpoint", options.checkpoint, "Run folder or checkpoint folder of train")->required();
  app.add_option("--data", options.data, "A text file, plain or gzipped");
  app.add_option("--dataset", options.dataset, "source, shakespeare_char, enwik8 or tinystories");
  app.add_option("--data-dir", options.data_dir, "Folder to look for datasets in");
  app.add_option("--part", options.part, "all (default of --data), train, validation (default of --dataset), test");
  app.add_option("--val-fraction", options.val_fraction, "Part of the text that is validation (0: as usual)");
  app.add_option("--context", options.context, "Tokens in a window (0: as in training)")->capture_default_str();
  app.add_option("--batch-size", options.batch_size, "Windows computed together")->capture_default_str();
  app.add_flag("--carry-state", options.carry_state, "Carry the state from window to window");
  app.add_option("--device", options.device, "cpu or cuda")->capture_default_str();
  app.add_option("--threads", options.threads, "CPU threads (0: as many as the machine has)")->capture_default_str();
  add_version(app);
  if (const auto done = parse_command_line(app, argc, argv)) return *done;
  check(options.data.empty() != options.dataset.empty(), "wanted a text: either --data FILE or --dataset NAME");
  check(options.batch_size >= 1, "--batch-size is ", options.batch_size, ", wanted at least 1");
  check(options.context >= 0, "--context is ", options.context, ", wanted 0 (as in training) or more");
  if (options.threads > 0) set_threads(static_cast<int>(options.threads));

  const Trained trained = load_trained(options.checkpoint, Device::parse(options.device));
  const Text text = options.data.empty() ? load_dataset(options.dataset, options.data_dir) : load_text(options.data);
  const std::vector<Token> all = trained.vocabulary.encode(text.content);
  const std::span<const Token> tokens = chosen_part(options, text, all);
  const int64_t context = options.context > 0 ? options.context : trained.context;
  const Evaluation result = options.carry_state
                                ? evaluate_carried(*trained.model, tokens, context)
                                : evaluate(*trained.model, Windows(tokens, context, "evaluated"), options.batch_size);
  const bool bytes = trained.vocabulary.kind() == Vocabulary::Kind::byte;
  std::cout << (options.carry_state ? "state carried: " : str("state reset every ", context, " tokens: ")) << "loss "
            << std::fixed << std::setprecision(6) << result.loss << " nats, " << result.bits() << " bits per "
            << (bytes ? "byte" : "character") << " over " << result.tokens << " tokens" << std::endl;
  return 0;
}

}  // namespace
}  // namespace monoid

int main(int argc, char** argv) {
  return monoid::run_tool("eval", [&] { return monoid::evaluate_checkpoint(argc, argv); });
}

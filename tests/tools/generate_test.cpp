#include "monoid/tools/text/generation.h"

#include <algorithm>

#include "monoid/core/error.h"
#include "monoid/tests/tools/process.h"
#include "monoid/tools/text/trained.h"

using namespace monoid;
using namespace monoid::test;

namespace {

// The likeliest continuation, every token from the whole text before it.
std::string continue_from_scratch(Trained& trained, const std::string& prompt, int64_t length) {
  std::vector<Token> tokens = trained.vocabulary.encode(prompt);
  const size_t start = tokens.size();
  for (int64_t i = 0; i < length; ++i) {
    const std::vector<int64_t> ids(tokens.begin(), tokens.end());
    const auto logits = trained.model->forward(Tensor::from(ids, {1, std::ssize(ids)})).to_vector<double>();
    const auto last = logits.end() - trained.vocabulary.size();
    tokens.push_back(static_cast<Token>(std::max_element(last, logits.end()) - last));
  }
  return trained.vocabulary.decode(std::span(tokens).subspan(start));
}

}  // namespace

TEST_CASE("text from the state is the text from scratch", "[tools][generate]") {
  const TemporaryFolder folder;
  for (const char* lstm : {"use_lstm=false", "use_lstm=true"}) {
    run_well("train", tiny_run(folder, lstm, {"--steps", "150", "--lr", "2e-2", "--dtype", "f64", "--set", lstm}));
    Trained trained = load_trained(folder / lstm);
    for (const char* prompt : {"a", "the scan of "}) {
      CAPTURE(lstm, prompt);
      std::string text;
      Generator generator(1);
      generate(*trained.model, trained.vocabulary, prompt, 60, {.temperature = 0}, generator, [&](const auto& piece) {
        text += piece;
        return true;
      });
      CHECK(text == continue_from_scratch(trained, prompt, 60));
      CHECK(std::count(text.begin(), text.end(), text[0]) < 60);  // it says something
    }
  }
}

TEST_CASE("prompts of different lengths, continued together, give what each gives alone", "[tools][generate]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "60", "--lr", "2e-2"}));
  const std::vector<std::string> prompts{"the scan of ", "a", "", "monoid is", "an answer, the answer, of a scan"};
  std::string file, expected;
  for (const std::string& prompt : prompts) {
    file += prompt + "\n";
    expected += (expected.empty() ? "" : "---\n") + run_well("generate", {"--checkpoint", folder / "run", "--prompt",
                                                                          prompt, "--length", "50", "--seed", "3"});
  }
  write_file(folder / "prompts.txt", file);
  const Arguments together{"--checkpoint", folder / "run", "--prompts", folder / "prompts.txt",
                           "--length",     "50",           "--seed",    "3"};
  CHECK(run_well("generate", together) == expected);
  Arguments both = together;
  both.insert(both.end(), {"--prompt", "a"});
  run_badly("generate", both, {"--prompt and --prompts are both given"});
  run_badly("generate", {"--checkpoint", folder / "run", "--prompts", folder / "none.txt"}, {"no file", "none.txt"});
}

TEST_CASE("generate repeats the prompt, writes on from it, and obeys its seed", "[tools][generate]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "3"}));
  const auto text = [&](const Arguments& more, const std::string& input = {}) {
    Arguments arguments{"--checkpoint", folder / "run", "--length", "40"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_well("generate", arguments, {.input = input});
  };
  const std::string first = text({"--prompt", "the ", "--seed", "1"});
  CHECK(first.starts_with("the "));
  CHECK(first.size() == 4 + 40 + 1);
  CHECK(text({"--prompt", "the ", "--seed", "1"}) == first);
  CHECK(text({"--prompt", "the ", "--seed", "2"}) != first);
  CHECK(text({"--seed", "1"}, "the ") == first);  // from standard input
  CHECK(text({"--checkpoint", folder / "run/checkpoint", "--prompt", "the ", "--seed", "1"}) == first);
  CHECK(text({}).size() == 41);  // from nothing
  CHECK(text({"--prompt", "a", "--length", "0"}) == "a\n");
  const std::string greedy = text({"--prompt", "the ", "--temperature", "0"});
  for (const char* narrow : {"--top-k=1", "--top-p=1e-9", "--top-fraction=0.001"}) {
    CHECK(text({"--prompt", "the ", narrow, "--seed", "5"}) == greedy);
  }
}

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "monoid/tests/tools/process.h"
#include "monoid/tools/text/evaluation.h"
#include "monoid/tools/text/trained.h"

using namespace monoid;
using namespace monoid::test;

namespace {

// Mean -log p of each next token, with the state reset where `reset` says, one token at a time.
template <class Reset>
double stepwise_loss(Trained& trained, const std::vector<Token>& tokens, size_t predictions, Reset reset) {
  State state;
  double sum = 0;
  for (size_t i = 0; i < predictions; ++i) {
    if (reset(i)) state.clear();
    const auto logits = trained.model->forward(Tensor::full({1, 1}, tokens[i], DType::i64), &state).to_vector<double>();
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    sum += std::log(total) - logits[tokens[i + 1]];
  }
  return sum / static_cast<double>(predictions);
}

double printed_loss(const std::string& out) {
  const size_t at = out.find("loss ");
  REQUIRE(at != std::string::npos);
  return std::stod(out.substr(at + 5));
}

}  // namespace

TEST_CASE("eval measures windows and carried state as a plain loop does", "[tools][eval]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "40", "--lr", "1e-2", "--dtype", "f64"}));
  const std::string text = some_text(150);
  write_file(folder / "other.txt", text);
  Trained trained = load_trained(folder / "run");
  const std::vector<Token> tokens = trained.vocabulary.encode(text);

  const Arguments flags{"--checkpoint", folder / "run", "--data", folder / "other.txt", "--batch-size", "4"};
  const std::string reset = run_well("eval", flags);
  CHECK_THAT(reset, ContainsSubstring("state reset every 16 tokens: loss "));
  CHECK_THAT(reset, ContainsSubstring("over 144 tokens"));
  const double wanted = stepwise_loss(trained, tokens, 144, [](size_t i) { return i % 16 == 0; });
  CHECK(printed_loss(reset) == Approx(wanted).margin(1e-6));
  CHECK(std::stod(reset.substr(reset.find("nats, ") + 6)) == Approx(wanted / std::log(2)).margin(1e-6));

  Arguments carry = flags;
  carry.push_back("--carry-state");
  const std::string carried = run_well("eval", carry);
  CHECK_THAT(carried, ContainsSubstring("state carried: loss "));
  CHECK_THAT(carried, ContainsSubstring("over 149 tokens"));
  const double wanted_carried = stepwise_loss(trained, tokens, 149, [](size_t) { return false; });
  CHECK(printed_loss(carried) == Approx(wanted_carried).margin(1e-6));
  CHECK(wanted_carried != Approx(wanted).margin(1e-4));
}

TEST_CASE("eval finds the validation loss that training logged", "[tools][eval]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "5"}));
  const std::string log = read_file(folder / "run/log.jsonl");
  const auto last = nlohmann::json::parse(log.substr(log.rfind('\n', log.size() - 2) + 1));
  const std::string out = run_well("eval", {"--checkpoint", folder / "run", "--data", folder / "text.txt", "--part",
                                            "validation", "--batch-size", "2"});
  CHECK(printed_loss(out) == Approx(last["val_loss"].get<double>()).margin(1e-6));
}

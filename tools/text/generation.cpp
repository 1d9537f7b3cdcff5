#include "monoid/tools/text/generation.h"

#include <algorithm>

#include "monoid/core/error.h"

namespace monoid {
namespace {

std::vector<Token> start_tokens(const Vocabulary& vocabulary, const std::string& prompt) {
  if (!prompt.empty()) return vocabulary.encode(prompt);
  for (int64_t token = 0; token < vocabulary.size(); ++token) {
    if (vocabulary.decode(static_cast<Token>(token)) == "\n") return {static_cast<Token>(token)};
  }
  return {0};
}

}  // namespace

void generate(LanguageModel& model, const Vocabulary& vocabulary, const std::string& prompt, int64_t length,
              const SamplingOptions& options, Generator& generator,
              const std::function<bool(const std::string& text)>& emit) {
  options.validate();
  check(length >= 0, "generate: --length is ", length, ", wanted 0 or more");
  const Device device = parameters(model).front().value.device();
  const auto vocabulary_size = static_cast<size_t>(vocabulary.size());

  std::vector<Token> tokens = start_tokens(vocabulary, prompt);
  State state;
  for (int64_t i = 0; i < length; ++i) {
    const std::vector<int64_t> ids(tokens.begin(), tokens.end());
    const Tensor logits = model.forward(Tensor::from(ids, {1, std::ssize(ids)}).to(device), &state);
    const std::vector<double> all = logits.to_vector<double>();
    const Token next = sample_token(std::span(all).last(vocabulary_size), options, generator);
    if (!emit(vocabulary.decode(next))) return;
    tokens = {next};
  }
}

}  // namespace monoid

#include "monoid/tools/text/generation.h"

#include <algorithm>

#include "monoid/core/error.h"
#include "monoid/models/decoder.h"

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
  const std::vector<Token> start = start_tokens(vocabulary, prompt);
  const std::vector<int64_t> ids(start.begin(), start.end());
  std::vector<int64_t> tokens;
  Decoder decoder(model, 1);
  Tensor logits = decoder.prefill(Tensor::from(ids, {1, std::ssize(ids)}));
  for (int64_t i = 0; i < length; ++i) {
    if (i > 0) logits = decoder.step(Tensor::from(tokens, {1}));
    tokens = {sample_token(logits.to_vector<double>(), options, generator)};
    if (!emit(vocabulary.decode(static_cast<Token>(tokens[0])))) return;
  }
}

}  // namespace monoid

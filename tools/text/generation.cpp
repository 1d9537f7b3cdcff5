#include "monoid/tools/text/generation.h"

#include <span>

#include "monoid/core/error.h"
#include "monoid/models/decoder.h"

namespace monoid {
namespace {

std::vector<int64_t> start_tokens(const Vocabulary& vocabulary, const std::string& prompt) {
  const std::vector<Token> tokens = vocabulary.encode(prompt);
  if (!tokens.empty()) return {tokens.begin(), tokens.end()};
  for (int64_t token = 0; token < vocabulary.size(); ++token) {
    if (vocabulary.decode(static_cast<Token>(token)) == "\n") return {token};
  }
  return {0};
}

// Draws `length` tokens behind each prompt, with one generator a prompt, and hands each step's tokens to `emit` until
// it returns false.
void draw(LanguageModel& model, const std::vector<std::vector<int64_t>>& prompts, int64_t length,
          const SamplingOptions& options, std::vector<Generator>& generators,
          const std::function<bool(const std::vector<int64_t>& tokens)>& emit) {
  options.validate();
  check(length >= 0, "generate: --length is ", length, ", wanted 0 or more");
  const int64_t batch = std::ssize(prompts);
  const auto [start, padding] = pad_left(prompts);
  Decoder decoder(model, batch);
  Tensor logits = decoder.prefill(start, padding);
  std::vector<int64_t> tokens(prompts.size());
  for (int64_t i = 0; i < length; ++i) {
    if (i > 0) logits = decoder.step(Tensor::from(tokens, {batch}));
    const std::vector<double> values = logits.to_vector<double>();
    const size_t width = values.size() / prompts.size();
    for (size_t row = 0; row < prompts.size(); ++row)
      tokens[row] = sample_token(std::span(values).subspan(row * width, width), options, generators[row]);
    if (!emit(tokens)) return;
  }
}

}  // namespace

void generate(LanguageModel& model, const Vocabulary& vocabulary, const std::string& prompt, int64_t length,
              const SamplingOptions& options, Generator& generator,
              const std::function<bool(const std::string& text)>& emit) {
  std::vector<Generator> generators{generator};
  draw(model, {start_tokens(vocabulary, prompt)}, length, options, generators,
       [&](const auto& tokens) { return emit(vocabulary.decode(static_cast<Token>(tokens[0]))); });
  generator = generators[0];
}

std::vector<std::string> generate_all(LanguageModel& model, const Vocabulary& vocabulary,
                                      const std::vector<std::string>& prompts, int64_t length,
                                      const SamplingOptions& options, const Generator& generator) {
  std::vector<std::string> texts(prompts.size());
  if (prompts.empty()) return texts;
  std::vector<std::vector<int64_t>> starts;
  for (const std::string& prompt : prompts) starts.push_back(start_tokens(vocabulary, prompt));
  std::vector<Generator> generators(prompts.size(), generator);
  draw(model, starts, length, options, generators, [&](const auto& tokens) {
    for (size_t row = 0; row < tokens.size(); ++row) texts[row] += vocabulary.decode(static_cast<Token>(tokens[row]));
    return true;
  });
  return texts;
}

}  // namespace monoid

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "monoid/models/language_model.h"
#include "monoid/tools/text/sampling.h"
#include "monoid/tools/text/vocabulary.h"

namespace monoid {

/// Reads the prompt in one piece, then draws `length` tokens, each from the state that the one before left: a token
/// costs the same wherever it stands. Hands each token's text to `emit`, until it returns false. An empty prompt
/// starts after a line break (or the vocabulary's first token).
void generate(LanguageModel& model, const Vocabulary& vocabulary, const std::string& prompt, int64_t length,
              const SamplingOptions& options, Generator& generator,
              const std::function<bool(const std::string& text)>& emit);

/// Continues several prompts, of any lengths, in one batch: what comes after each. Every text has random numbers of its
/// own, which begin where the generator stands, so that it is the text that its prompt gives alone.
std::vector<std::string> generate_all(LanguageModel& model, const Vocabulary& vocabulary,
                                      const std::vector<std::string>& prompts, int64_t length,
                                      const SamplingOptions& options, const Generator& generator);

}  // namespace monoid

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "monoid/tools/text/dataset.h"
#include "monoid/tools/train/options.h"

namespace monoid {

/// A text as tokens, and what identifies it.
struct Corpus {
  std::string name;
  uint32_t checksum;
  Vocabulary vocabulary;
  std::vector<Token> tokens;
  Split split;  // of `tokens`, and so of this object or what it is moved to
};

/// The text that --dataset or --data names, read with the vocabulary and split that the options ask for.
Corpus load_corpus(const TrainOptions& options);

}  // namespace monoid

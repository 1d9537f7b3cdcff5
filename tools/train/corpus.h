#pragma once

#include <cstdint>
#include <string>

#include "monoid/tools/text/dataset.h"
#include "monoid/tools/train/options.h"

namespace monoid {

/// A text as tokens, and what identifies it.
struct Corpus {
  std::string name;
  uint32_t checksum;
  Vocabulary vocabulary;
  Split split;
};

/// The text that --dataset or --data names, read with the vocabulary and split that the options ask for.
Corpus load_corpus(const TrainOptions& options);

}  // namespace monoid

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/tools/text/vocabulary.h"

namespace monoid {

/// How the next token is drawn. The filters keep the likeliest tokens and compose; the defaults keep all.
struct SamplingOptions {
  double temperature = 1;   // 0: always the likeliest token
  int64_t top_k = 0;        // keep this many; 0 keeps all
  double top_p = 1;         // keep the fewest whose probabilities sum to at least this
  double top_fraction = 1;  // keep this part of the vocabulary, rounded up: 0.1 is the references' filter

  /// Values out of range are Errors that name the flag.
  void validate() const;
};

/// Probabilities of each token under the options; filtered tokens have exactly 0. Ties go to the smaller token.
std::vector<double> sampling_probabilities(std::span<const double> logits, const SamplingOptions& options);
/// One token drawn from them. Logits that are not finite are an Error.
Token sample_token(std::span<const double> logits, const SamplingOptions& options, Generator& generator);

}  // namespace monoid

#include "monoid/tools/text/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "monoid/core/error.h"

namespace monoid {

void SamplingOptions::validate() const {
  check(temperature >= 0 && std::isfinite(temperature), "sampling: --temperature is ", temperature,
        ", wanted 0 or more");
  check(top_k >= 0, "sampling: --top-k is ", top_k, ", wanted 0 (all) or more");
  check(top_p > 0 && top_p <= 1, "sampling: --top-p is ", top_p, ", wanted above 0 and at most 1");
  check(top_fraction > 0 && top_fraction <= 1, "sampling: --top-fraction is ", top_fraction,
        ", wanted above 0 and at most 1");
}

std::vector<double> sampling_probabilities(std::span<const double> logits, const SamplingOptions& options) {
  const size_t count = logits.size();
  check(count > 0 && std::all_of(logits.begin(), logits.end(), [](double x) { return std::isfinite(x); }),
        "sampling: the model's logits are not finite; its parameters are broken");
  std::vector<size_t> order(count);  // tokens from the likeliest on
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });

  size_t kept = count;
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  kept = std::min(kept, static_cast<size_t>(std::ceil(options.top_fraction * static_cast<double>(count))));
  if (options.temperature == 0) kept = 1;

  std::vector<double> probabilities(count, 0.0);
  const auto normalise = [&] {
    double sum = 0;
    for (size_t i = 0; i < kept; ++i) sum += probabilities[order[i]];
    for (size_t i = 0; i < kept; ++i) probabilities[order[i]] /= sum;
  };
  const double largest = logits[order[0]];
  for (size_t i = 0; i < kept; ++i) {
    const double below = logits[order[i]] - largest;
    probabilities[order[i]] = below == 0 ? 1 : std::exp(below / options.temperature);
  }
  normalise();
  double sum = 0;
  for (size_t i = 0; options.top_p < 1 && i < kept; ++i) {
    sum += probabilities[order[i]];
    if (sum < options.top_p) continue;
    for (size_t j = i + 1; j < kept; ++j) probabilities[order[j]] = 0;
    kept = i + 1;
    normalise();
  }
  return probabilities;
}

Token sample_token(std::span<const double> logits, const SamplingOptions& options, Generator& generator) {
  const std::vector<double> probabilities = sampling_probabilities(logits, options);
  const double place = generator.uniform();
  double sum = 0;
  size_t token = 0;
  for (size_t i = 0; i < probabilities.size() && sum <= place; ++i) {
    if (probabilities[i] > 0) token = i;  // rounding may leave the sum just below `place`: the last one possible stays
    sum += probabilities[i];
  }
  return static_cast<Token>(token);
}

}  // namespace monoid

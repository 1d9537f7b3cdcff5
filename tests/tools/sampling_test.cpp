#include "monoid/tools/text/sampling.h"

#include <cmath>
#include <limits>

#include "monoid/core/error.h"
#include "monoid/tests/support/catch.h"

using namespace monoid;

namespace {

const std::vector<double> kLogits{std::log(0.1), std::log(0.4), std::log(0.05), std::log(0.3), std::log(0.15)};

void check_probabilities(const SamplingOptions& options, const std::vector<double>& wanted) {
  const std::vector<double> seen = sampling_probabilities(kLogits, options);
  REQUIRE(seen.size() == wanted.size());
  for (size_t i = 0; i < seen.size(); ++i) {
    CAPTURE(i);
    CHECK(seen[i] == Approx(wanted[i]).epsilon(1e-12));
    CHECK((wanted[i] == 0) == (seen[i] == 0));
  }
}

}  // namespace

TEST_CASE("each filter keeps the likeliest tokens and renormalises", "[tools][sampling]") {
  check_probabilities({}, {0.1, 0.4, 0.05, 0.3, 0.15});
  check_probabilities({.top_k = 2}, {0, 4 / 7.0, 0, 3 / 7.0, 0});
  check_probabilities({.top_k = 99}, {0.1, 0.4, 0.05, 0.3, 0.15});
  check_probabilities({.top_p = 0.75}, {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
  check_probabilities({.top_p = 0.69}, {0, 4 / 7.0, 0, 3 / 7.0, 0});
  check_probabilities({.top_p = 1e-9}, {0, 1, 0, 0, 0});
  check_probabilities({.top_fraction = 0.41}, {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
  check_probabilities({.top_fraction = 0.4}, {0, 4 / 7.0, 0, 3 / 7.0, 0});
  check_probabilities({.top_fraction = 0.01}, {0, 1, 0, 0, 0});
  check_probabilities({.top_k = 3, .top_p = 0.5}, {0, 4 / 7.0, 0, 3 / 7.0, 0});
}

TEST_CASE("the temperature sharpens and flattens, and 0 takes the likeliest", "[tools][sampling]") {
  const double sum = 0.01 + 0.16 + 0.0025 + 0.09 + 0.0225;
  check_probabilities({.temperature = 0.5}, {0.01 / sum, 0.16 / sum, 0.0025 / sum, 0.09 / sum, 0.0225 / sum});
  check_probabilities({.temperature = 1e15}, {0.2, 0.2, 0.2, 0.2, 0.2});
  check_probabilities({.temperature = 0}, {0, 1, 0, 0, 0});
  const std::vector<double> tie{1, 3, 3};
  CHECK(sampling_probabilities(tie, {.temperature = 0}) == std::vector<double>{0, 1, 0});
  CHECK(sampling_probabilities(tie, {.top_k = 1}) == std::vector<double>{0, 1, 0});
  const std::vector<double> huge{-1e300, 1e300};
  CHECK(sampling_probabilities(huge, {.temperature = 1e-300}) == std::vector<double>{0, 1});
}

TEST_CASE("tokens are drawn as often as their probabilities say", "[tools][sampling]") {
  Generator generator(11);
  std::vector<int> counts(5);
  constexpr int kDraws = 20'000;
  for (int i = 0; i < kDraws; ++i) ++counts[sample_token(kLogits, {.top_k = 4}, generator)];
  const std::vector<double> wanted = sampling_probabilities(kLogits, {.top_k = 4});
  for (size_t i = 0; i < counts.size(); ++i) {
    CAPTURE(i);
    CHECK(counts[i] / double{kDraws} == Approx(wanted[i]).margin(0.015));  // four standard deviations
  }
  CHECK(counts[2] == 0);
}

TEST_CASE("bad sampling options and logits are errors", "[tools][sampling]") {
  CHECK_THROWS_WITH(SamplingOptions{.temperature = -1}.validate(), ContainsSubstring("--temperature is -1"));
  CHECK_THROWS_WITH(SamplingOptions{.top_k = -1}.validate(), ContainsSubstring("--top-k is -1"));
  CHECK_THROWS_WITH(SamplingOptions{.top_p = 0}.validate(), ContainsSubstring("--top-p is 0"));
  CHECK_THROWS_WITH(SamplingOptions{.top_fraction = 1.5}.validate(), ContainsSubstring("--top-fraction is 1.5"));
  const std::vector<double> bad{0, std::numeric_limits<double>::quiet_NaN()};
  CHECK_THROWS_WITH(sampling_probabilities(bad, {}), ContainsSubstring("not finite"));
}

#include "monoid/core/error.h"

#include <algorithm>
#include <numeric>

namespace monoid {
namespace {

// A path from the source root on: "ops/scan.cpp", not where the tree happened to be built.
std::string_view short_path(std::string_view path) {
  for (std::string_view room : {"tests/", "core/", "kernels/", "ops/", "layers/", "models/", "tools/"}) {
    const size_t at = path.rfind(room);
    if (at != std::string_view::npos && (at == 0 || path[at - 1] == '/')) return path.substr(at);
  }
  return path;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

Error::Error(std::string message, std::source_location site)
    : std::runtime_error(str(message, " [", short_path(site.file_name()), ":", site.line(), "]")),
      message_(std::move(message)),
      site_(site) {}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2) + 1;
  for (const std::string& candidate : candidates) {
    // The beginning of a longer name is near it, however much is missing.
    const bool begins = word.size() >= 3 && candidate.starts_with(word);
    const size_t distance = begins ? 1 : edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace monoid

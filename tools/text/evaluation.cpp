#include "monoid/tools/text/evaluation.h"

#include <algorithm>

#include "monoid/core/error.h"

namespace monoid {
namespace {

Device device_of(LanguageModel& model) { return parameters(model).front().value.device(); }

// Losses are means over a batch; their sum is kept in double, weighed by how many tokens each stands for.
class Mean {
 public:
  void add(const Tensor& loss, int64_t tokens) {
    sum_ += loss.item() * static_cast<double>(tokens);
    tokens_ += tokens;
  }
  Evaluation result() const { return {sum_ / static_cast<double>(tokens_), tokens_}; }

 private:
  double sum_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace

Evaluation evaluate(LanguageModel& model, const Windows& windows, int64_t batch) {
  const Device device = device_of(model);
  Mean mean;
  for (int64_t first = 0; first < windows.count(); first += batch) {
    const Batch piece = windows.at(first, std::min(batch, windows.count() - first));
    mean.add(model.loss(piece.tokens.to(device), piece.targets.to(device)), piece.tokens.elements());
  }
  return mean.result();
}

Evaluation evaluate_carried(LanguageModel& model, std::span<const Token> tokens, int64_t context) {
  check(tokens.size() >= 2, "eval: the text has ", tokens.size(), " tokens; wanted at least 2");
  const Device device = device_of(model);
  Mean mean;
  State state;
  for (size_t first = 0; first + 1 < tokens.size();) {
    const size_t count = std::min(static_cast<size_t>(context), tokens.size() - 1 - first);
    const Batch piece = Windows(tokens.subspan(first, count + 1), static_cast<int64_t>(count), "carried").at(0, 1);
    mean.add(model.loss(piece.tokens.to(device), piece.targets.to(device), &state), piece.tokens.elements());
    first += count;
  }
  return mean.result();
}

}  // namespace monoid

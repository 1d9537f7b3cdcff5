#include "monoid/tools/text/batches.h"

#include <algorithm>

#include "monoid/core/error.h"

namespace monoid {
namespace {

// Row i holds `context` tokens from start(i), and its targets the same one place on.
template <class Start>
Batch gather_crops(std::span<const Token> tokens, int64_t batch, int64_t context, Start start) {
  Batch result{Tensor::empty({batch, context}, DType::i64), Tensor::empty({batch, context}, DType::i64)};
  int64_t* inputs = result.tokens.data<int64_t>();
  int64_t* targets = result.targets.data<int64_t>();
  for (int64_t row = 0; row < batch; ++row, inputs += context, targets += context) {
    const Token* crop = tokens.data() + start(row);
    std::copy_n(crop, context, inputs);
    std::copy_n(crop + 1, context, targets);
  }
  return result;
}

void check_length(std::string_view part, std::span<const Token> tokens, int64_t context) {
  check(context >= 1, "text: --context is ", context, ", wanted at least 1");
  check(std::ssize(tokens) > context, "text: the ", part, " text has ", tokens.size(), " tokens and --context ",
        context, " needs at least ", context + 1, "; use a shorter --context or a longer text");
}

}  // namespace

RandomCrops::RandomCrops(std::span<const Token> tokens, int64_t batch, int64_t context, Generator generator)
    : tokens_(tokens), batch_(batch), context_(context), generator_(generator) {
  check_length("training", tokens, context);
}

Batch RandomCrops::next() {
  const int64_t places = std::ssize(tokens_) - context_;
  return gather_crops(tokens_, batch_, context_, [&](int64_t) { return generator_.below(places); });
}

Streams::Streams(std::span<const Token> tokens, int64_t batch, int64_t context)
    : tokens_(tokens), batch_(batch), context_(context) {
  check_length("training", tokens, context);
  stream_ = (std::ssize(tokens) - 1) / batch;
  check(stream_ >= context, "text: the training text has ", tokens.size(), " tokens, too few for ", batch,
        " streams of --context ", context, " or more; use a smaller --batch-size or --context");
}

Batch Streams::next() {
  const int64_t first = position_ * context_;
  if (++position_ == stream_ / context_) position_ = 0;
  return gather_crops(tokens_, batch_, context_, [&](int64_t row) { return row * stream_ + first; });
}

void Streams::set_position(int64_t position) {
  check(position >= 0 && position < stream_ / context_, "streams: position ", position, " is not one of the ",
        stream_ / context_, " pieces");
  position_ = position;
}

Windows::Windows(std::span<const Token> tokens, int64_t context, std::string_view part)
    : tokens_(tokens), context_(context) {
  check_length(part, tokens, context);
  count_ = (std::ssize(tokens) - 1) / context;
}

Batch Windows::at(int64_t first, int64_t batch) const {
  check(first >= 0 && batch >= 1 && first + batch <= count_, "windows: asked for [", first, ", ", first + batch,
        ") of ", count_);
  return gather_crops(tokens_, batch, context_, [&](int64_t row) { return (first + row) * context_; });
}

}  // namespace monoid

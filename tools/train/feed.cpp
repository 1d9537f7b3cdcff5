#include "monoid/tools/train/feed.h"

#include "monoid/core/error.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// Any tensor will do: it is there or not, and so a captured step of either kind is a graph of its own.
void mark_beginning(Tensors& batch) { batch.push_back(Tensor::zeros({1}, DType::i64)); }

}  // namespace

Feed::Feed(const TrainOptions& options, std::span<const Token> tokens)
    : accumulated_(options.grad_accum),
      segments_(options.segments),
      crops_(tokens, options.batch_size, options.context, random_stream(options, RandomStream::batches)) {
  check(options.context % segments_ == 0, "--segments ", segments_, " does not divide --context ", options.context);
  if (options.carry_state) streams_.emplace(tokens, options.batch_size, options.context);
}

void Feed::set_position(int64_t position) {
  if (streams_) streams_->set_position(position);
}

std::vector<Tensors> Feed::next() {
  std::vector<Tensors> batches;
  for (int64_t i = 0; i < accumulated_; ++i) {
    if (streams_) {
      const bool anew = streams_->at_beginning();
      Batch piece = streams_->next();
      batches.push_back({piece.tokens, piece.targets});
      if (anew) mark_beginning(batches.back());
      continue;
    }
    const Batch crop = crops_.next();
    const int64_t length = crop.tokens.size(1) / segments_;
    for (int64_t segment = 0; segment < segments_; ++segment) {
      const auto piece = [&](const Tensor& whole) {
        return contiguous(slice(whole, 1, segment * length, (segment + 1) * length));
      };
      batches.push_back({piece(crop.tokens), piece(crop.targets)});
      if (segments_ > 1 && segment == 0) mark_beginning(batches.back());
    }
  }
  return batches;
}

}  // namespace monoid

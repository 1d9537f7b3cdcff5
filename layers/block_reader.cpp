#include "monoid/layers/block_reader.h"

#include <algorithm>

#include "monoid/core/stream.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// Counts are computed with in f32, where whole numbers up to 2^24 are exact.
Tensor numbers(const Tensor& counts) { return cast(counts, DType::f32); }
Tensor counts(const Tensor& numbers) { return cast(numbers, DType::i32); }

// [batch] beside [1, width] or the like.
Tensor as_column(const Tensor& x, int rank) {
  Shape shape{x.size(0)};
  for (int axis = 1; axis < rank; ++axis) shape = shape.inserted(axis, 1);
  return reshape(x, shape);
}

}  // namespace

// What one attention reads stands on one table, whose factors stay near 1: pairs change by up to 3.5 in 512 rows.
int64_t BlockTables::blocks_at_once(const BlockRecurrentOptions& options) {
  constexpr int64_t kBlocks = 16, kRows = 16384;
  return options.compressed > 0 ? 1 : std::clamp<int64_t>(kRows / options.width, 1, kBlocks);
}

const BlockTables::Tables& BlockTables::of(const Tensor& like) const {
  constexpr int64_t kNumbers = 4096;
  const DType dtype = like.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor& held = tables_.rotary.queries;
  if (!held.defined() || held.dtype() != dtype || held.device() != like.device()) {
    check(!Graph::capturing(),
          "block-recurrent: its tables must be there before a graph is recorded; run a step first");
    tables_ = {xpos_tables(block_recurrent_xpos(rotated_, rows_), rows_, dtype, like.device()),
               Tensor::arange(std::max(width_, kNumbers), DType::f32, like.device())};
  }
  return tables_;
}

BlockReader::BlockReader(const char* owner, const BlockRecurrentOptions& options, const BlockTables::Tables& tables,
                         StateUpdate& update, const State* held, const Tensor& tokens)
    : owner_(owner),
      options_(options),
      tables_(tables),
      device_(tokens.device()),
      time_(tokens.size(1)),
      fresh_(!held || held->empty()),
      keeps_(held != nullptr) {
  steps_ = update.steps();
  padding_ = update.first_key();
  offset_ = update.offset();
  remembered_ = update.before("remembered", {tokens.size(0)});
  if (!remembered_.defined()) remembered_ = Tensor::zeros({tokens.size(0)}, DType::i32, device_);
}

Tensor BlockReader::numbers_to(int64_t end) const {
  const Tensor& numbers = tables_.numbers;
  if (end <= numbers.size(0)) return slice(numbers, 0, 0, end);
  check(!Graph::capturing(), owner_, ": a captured step reads up to ", numbers.size(0), " blocks, not ", end);
  return Tensor::arange(end, DType::f32, device_);
}

void BlockReader::forget(const Tensor& condition) {
  remembered_ = where(condition, Tensor::zeros_like(remembered_), remembered_);
}

BlockSpan BlockReader::next() {
  const bool one = !fresh_ && (time_ == 1 || padding_.defined());
  BlockSpan span = one ? one_token() : padding_.defined() ? with_padding() : together();
  span.begin = begin_;
  span.fresh = fresh_ && begin_ == 0;
  span.carried = keeps_ || begin_ + span.blocks * span.tokens < time_;
  span.first_key = first_key(span.blocks);
  span.tables = tables_.rotary;
  begin_ += span.blocks * span.tokens;
  if (span.ends && span.carried) {
    const Tensor before = numbers(remembered_);
    remembered_ = counts(span.ended.defined() ? before + numbers(reshape(span.ended, {before.size(0)}))
                                              : before + static_cast<double>(span.blocks));
  }
  return span;
}

BlockSpan BlockReader::together() const {
  const int64_t width = options_.width, left = time_ - begin_;
  BlockSpan span;
  span.phase = (offset_ + begin_) % width;
  check(!Graph::capturing() || !keeps_ || (span.phase == 0 && left % width == 0), owner_,
        ": a captured step that goes on with a state must read whole blocks of ", width, " tokens, not ", time_,
        " from place ", span.phase, " on");
  span.tokens = std::min(width - span.phase, left);
  if (span.tokens == width) span.blocks = left / width;
  span.ends = span.phase + span.tokens == width;
  return span;
}

// A block of sequences that all begin with it or before, and may have ended.
BlockSpan BlockReader::with_padding() const {
  const int64_t width = options_.width;
  BlockSpan span;
  span.tokens = std::min(width, time_ - begin_);
  span.ends = span.tokens == width;
  const Tensor left = static_cast<double>(time_ - begin_) - as_column(numbers(padding_), 3);
  const Tensor taken = clamp(left, 0, static_cast<double>(span.tokens));
  span.places = less(reshape(numbers_to(width), {1, width, 1}), taken);
  span.ended = equal(taken, Tensor::scalar(static_cast<double>(width), DType::f32, device_));
  return span;
}

BlockSpan BlockReader::one_token() const {
  const int64_t width = options_.width;
  BlockSpan span;
  span.tokens = 1;
  Tensor read = numbers(steps_) - static_cast<double>(time_ - begin_);
  if (padding_.defined()) read = read - numbers(padding_);
  const auto wide = static_cast<double>(width);
  const Tensor place = read - wide * numbers(counts(read / wide));
  span.places = equal(reshape(numbers_to(width), {1, width, 1}), as_column(place, 3));
  span.ended = slice(span.places, 1, width - 1, width);
  span.end_key = counts(place + static_cast<double>(options_.memory() + 1));
  // Whether the block ends is known here (and no captured token is one that ends it), or else looked at on the device.
  span.ends = true;
  if (!padding_.defined()) {
    span.ends = (offset_ + begin_) % width == width - 1;
  } else if (device_.is_cpu()) {
    const std::vector<double> now = place.to_vector<double>();
    span.ends = std::ranges::find(now, wide - 1) != now.end();
  }
  return span;
}

// How many keys are not there yet in front of each of the next blocks. The first block that is remembered leaves no
// compressed keys: those are made of what falls out behind it.
Tensor BlockReader::first_key(int64_t blocks) const {
  const Tensor before = as_column(numbers(remembered_), 2) + reshape(numbers_to(blocks), {1, blocks});
  Tensor there = clamp(before, 0, 1) * static_cast<double>(options_.width);
  if (options_.compressed > 0) {
    const Tensor compressed = (before - 1) * static_cast<double>(options_.fresh_compressed());
    there = there + clamp(compressed, 0, static_cast<double>(options_.compressed));
  }
  return counts(static_cast<double>(options_.memory()) - there);
}

Tensor BlockReader::shifted(const Tensor& x, int64_t sign) const {
  if (!padding_.defined() || !fresh_) return x;
  const Tensor here = reshape(numbers_to(time_), {1, time_});
  const Tensor there = here + static_cast<double>(sign) * as_column(numbers(padding_), 2);
  const Tensor index = counts(clamp(there, 0, static_cast<double>(time_ - 1)));
  return gather(x, 1, expand(x.rank() == 2 ? index : unsqueeze(index, 2), x.shape()));
}

}  // namespace monoid

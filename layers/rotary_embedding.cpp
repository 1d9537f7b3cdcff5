#include "monoid/layers/rotary_embedding.h"

#include <algorithm>
#include <bit>

#include "monoid/core/stream.h"

namespace monoid {

RotaryEmbedding::Turn RotaryEmbedding::turn(StateUpdate& state, const Tensor& like, const Tensor& frequencies) const {
  const RotaryPositions at{.offset = state.offset(), .first_key = state.first_key(), .end_key = state.end_key()};
  const int64_t horizon = state.horizon();
  int64_t steps = state.offset() + like.size(1);
  const RotaryScaling& scaling = options_.scaling;
  const bool dynamic = scaling.kind == RotaryScaling::Kind::dynamic;
  if (dynamic && at.first_key.defined() && steps > scaling.trained_time && !Graph::capturing())
    steps -= std::ranges::min(at.first_key.to_vector<int32_t>());
  const int64_t stretched = dynamic && steps > scaling.trained_time ? steps : 0;
  const DType dtype = like.dtype() == DType::f64 ? DType::f64 : DType::f32;
  bool current = true;
  if (frequencies.defined() && !sure_ && !Graph::capturing()) {
    std::vector<double> stored = frequencies.to_vector<double>();
    current = stored == of_;
    of_ = std::move(stored);
    sure_ = true;
  }
  const bool fits = current && table_.defined() && table_.dtype() == dtype && table_.device() == like.device() &&
                    table_.size(1) >= horizon && stretched_ == stretched;
  if (Graph::capturing()) {
    check(!dynamic || horizon <= scaling.trained_time,
          "rotary: dynamic scaling makes a new table at every step beyond ", scaling.trained_time,
          ", which a captured graph cannot; decode without one");
    check(fits, "rotary: its table must be there before a graph is recorded; run a step first");
  }
  if (!fits) {
    const auto positions = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(horizon, 1))));
    const bool given = frequencies.defined();
    table_ =
        rotary_table(given ? frequencies : rotary_frequencies(options_.rotated, options_.theta, scaling, stretched),
                     positions, dtype, like.device());
    stretched_ = stretched;
  }
  if (Graph::capturing() && (recorded_.empty() || recorded_.back().raw() != table_.raw())) recorded_.push_back(table_);
  return {table_, options_.pairs, at};
}

}  // namespace monoid

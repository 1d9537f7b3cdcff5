#pragma once

#include "monoid/core/tape.h"

namespace monoid {

// Scans in a logarithmic number of rounds, for any monoid whose elements are matrices in tensors: an element is a list
// of tensors [batch, time, ...], and `combine(left, right)` combines as many elements at once as they have steps. They
// are written with whole-tensor ops, so they run on every device; nothing is recorded.

namespace detail {
/// Every `step`-th time step from `begin` to before `end`, as a view.
inline Tensor steps_of(const Tensor& x, int64_t begin, int64_t end, int64_t step = 1) {
  const int64_t count = begin < end ? (end - begin + step - 1) / step : 0;
  return x.as_strided(x.shape().with(1, count), x.strides().with(1, step * x.strides()[1]),
                      x.offset() + (count > 0 ? begin * x.strides()[1] : 0));
}
inline Tensors steps_of(const Tensors& element, int64_t begin, int64_t end, int64_t step = 1) {
  Tensors result;
  for (const Tensor& part : element) result.push_back(steps_of(part, begin, end, step));
  return result;
}
inline void write_steps(Tensors& element, int64_t begin, int64_t end, int64_t step, const Tensors& values) {
  for (size_t i = 0; i < element.size(); ++i) steps_of(element[i], begin, end, step).copy_from(values[i]);
}
}  // namespace detail

/// Doubling: after the round of reach r, every step stands for the 2r steps that end with it.
template <class Combine>
Tensors hillis_steele_scan(Tensors element, const Combine& combine) {
  const int64_t time = element.front().size(1);
  for (int64_t reach = 1; reach < time; reach *= 2) {
    Tensors next;
    for (const Tensor& part : element) next.push_back(part.clone());
    detail::write_steps(next, reach, time, 1,
                        combine(detail::steps_of(element, 0, time - reach), detail::steps_of(element, reach, time)));
    element = next;
  }
  return element;
}

/// Pairs: half as many elements, scanned by the same rule; odd steps are done with that, even ones lack themselves.
template <class Combine>
Tensors brent_kung_scan(const Tensors& element, const Combine& combine) {
  const int64_t time = element.front().size(1);
  if (time < 2) return element;
  const Tensors pairs = brent_kung_scan(
      combine(detail::steps_of(element, 0, time - 1, 2), detail::steps_of(element, 1, time, 2)), combine);
  Tensors result;
  for (const Tensor& part : element) result.push_back(Tensor::empty_like(part));
  detail::write_steps(result, 0, 1, 1, detail::steps_of(element, 0, 1));
  detail::write_steps(result, 1, time, 2, pairs);
  if (time > 2) {
    detail::write_steps(result, 2, time, 2,
                        combine(detail::steps_of(pairs, 0, (time - 1) / 2), detail::steps_of(element, 2, time, 2)));
  }
  return result;
}

}  // namespace monoid

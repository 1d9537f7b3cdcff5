#pragma once

#include <cstdint>
#include <vector>

#include "monoid/core/runtime.h"
#include "monoid/core/tensor.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid::test {

inline constexpr Device kCuda{DeviceKind::cuda, 0};

/// Whether there is a GPU to test on; where there is none, says so: `if (!cuda_or_skip()) return;`.
inline bool cuda_or_skip() {
  if (is_available(kCuda)) return true;
  WARN("no GPU: skipped");
  return false;
}

inline constexpr Device kSecondCuda{DeviceKind::cuda, 1};

inline bool second_cuda_or_skip() {
  if (is_available(kSecondCuda)) return true;
  WARN("no second GPU: skipped");
  return false;
}

/// A contiguous output for a kernel in the middle of a larger buffer. Every byte starts as 0xff: elements that the
/// kernel forgets are NaN (or -1), and what it writes outside shows up in check_intact(). `skipped` elements before it
/// take the address off the 16-byte grid.
class Guarded {
 public:
  explicit Guarded(const Shape& shape, DType dtype = DType::f32, int64_t skipped = 0, Device device = kCuda)
      : begin_(kMargin + static_cast<size_t>(skipped) * size_of(dtype)),
        end_(begin_ + static_cast<size_t>(shape.elements()) * size_of(dtype)),
        buffer_(Tensor::from(std::vector<uint8_t>(end_ + kMargin, kPattern), {static_cast<int64_t>(end_ + kMargin)},
                             device)) {
    tensor_ = Tensor::wrap(static_cast<char*>(buffer_.raw()) + begin_, shape, dtype, device, [keep = buffer_] {});
  }

  Tensor& tensor() { return tensor_; }
  void check_intact() const {
    const auto bytes = buffer_.to_vector<uint8_t>();
    size_t touched = 0;
    for (size_t i = 0; i < bytes.size(); ++i) touched += (i < begin_ || i >= end_) && bytes[i] != kPattern ? 1 : 0;
    CHECK(touched == 0);
  }

 private:
  static constexpr size_t kMargin = 4096;
  static constexpr uint8_t kPattern = 0xff;

  size_t begin_, end_;
  Tensor buffer_;
  Tensor tensor_;
};

/// Runs `results`, a function that returns tensors, again and again: every run must give the same bits.
template <class Results>
void check_repeats(Results results, int runs = 20) {
  const std::vector<Tensor> first = results();
  for (int run = 1; run < runs; ++run) {
    const std::vector<Tensor> again = results();
    REQUIRE(again.size() == first.size());
    for (size_t i = 0; i < first.size(); ++i) check_identical(again[i], first[i]);
  }
}

}  // namespace monoid::test

// The mask is a function of the element's index, so forward and backward compute it instead of storing it: ten Philox
// rounds give four elements their bits, vectorised over counters.

#include "monoid/kernels/dropout.h"

#include <cmath>

#include "monoid/core/random.h"
#include "monoid/kernels/cpu/blocks.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {
namespace {

// words[0 .. 4 count) = the random words of `count` counters from `counter` on.
inline void random_words(uint64_t seed, uint64_t counter, int64_t count, uint32_t* words) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const auto [w0, w1, w2, w3] = philox(seed, counter + static_cast<uint64_t>(i));
    words[4 * i] = w0;
    words[4 * i + 1] = w1;
    words[4 * i + 2] = w2;
    words[4 * i + 3] = w3;
  }
}

}  // namespace

void dropout(const Tensor& x, double probability, uint64_t seed, uint64_t first, const Tensor& base, Tensor& y) {
  if (base.defined()) first += static_cast<uint64_t>(*base.data<int64_t>());
  dispatch_real("dropout", x.dtype(), [&]<class T>() {
    const BlockReader<T> from(x, y.shape());
    T* const to = y.data<T>();
    const T scale = static_cast<T>(1 / (1 - probability));
    // uniform < probability for the 24-bit uniform numbers, as whole numbers.
    const auto lowest_kept = static_cast<int32_t>(std::ceil(probability * 0x1p24));
    for_each_block(
        y.shape(),
        [=](int64_t begin, int64_t count, const T* in) {
          alignas(64) uint32_t bits[kBlockElements + 8];
          for (int64_t done = 0; done < count; done += kBlockElements) {
            const int64_t part = std::min(kBlockElements, count - done);
            const uint64_t index = first + static_cast<uint64_t>(begin + done);
            const auto skipped = static_cast<int64_t>(index % 4);
            vectorised([=, words = bits, source = in + done, target = to + begin + done] {
              random_words(seed, index / 4, (skipped + part + 3) / 4, words);
#pragma GCC ivdep
              for (int64_t i = 0; i < part; ++i) {
                const T scaled = source[i] * scale;
                target[i] = static_cast<int32_t>(words[skipped + i] >> 8) >= lowest_kept ? scaled : T(0);
              }
            });
          }
        },
        from);
  });
}

}  // namespace monoid::cpu

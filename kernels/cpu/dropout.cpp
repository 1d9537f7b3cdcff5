// The mask is a function of the element's index, so forward and backward compute it instead of storing it: ten Philox
// rounds give four elements their bits, vectorised over counters.

#include "monoid/kernels/dropout.h"

#include <cmath>

#include "monoid/core/random.h"
#include "monoid/kernels/cpu/blocks.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {

void dropout(const Tensor& x, double probability, uint64_t seed, uint64_t first, Tensor& y) {
  dispatch_real("dropout", x.dtype(), [&]<class T>() {
    const BlockReader<T> from(x, y.shape());
    T* to = y.data<T>();
    const T scale = static_cast<T>(1 / (1 - probability));
    // uniform < probability for the 24-bit uniform numbers, as whole numbers.
    const auto lowest_kept = static_cast<int32_t>(std::ceil(probability * 0x1p24));
    for_each_block(
        y.shape(),
        [=](int64_t begin, int64_t count, const T* in) {
          alignas(64) uint32_t bits[kBlockElements + 8];
          for (int64_t done = 0; done < count; done += kBlockElements) {
            const int64_t part = std::min(kBlockElements, count - done);
            const uint64_t index = first + static_cast<uint64_t>(begin + done), counter = index / 4;
            const auto skipped = static_cast<int64_t>(index % 4);
            const T* source = in + done;
            T* target = to + begin + done;
            vectorised([=, &bits] {
              uint32_t* words = bits;
              for (int64_t i = 0; i < (skipped + part + 3) / 4; ++i) {
                const auto four = philox(seed, counter + static_cast<uint64_t>(i));
                for (size_t word = 0; word < 4; ++word) words[4 * i + static_cast<int64_t>(word)] = four[word];
              }
              words += skipped;
#pragma GCC ivdep
              for (int64_t i = 0; i < part; ++i) {
                target[i] = static_cast<int32_t>(words[i] >> 8) >= lowest_kept ? source[i] * scale : T(0);
              }
            });
          }
        },
        from);
  });
}

}  // namespace monoid::cpu

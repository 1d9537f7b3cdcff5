// Rotary embeddings: one pass over x, with a row of the table for all heads of a time step. Floor: x read, y written.

#include "monoid/kernels/rotary.h"

#include <algorithm>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a task

// One head; `pair_step` apart are the pairs, `half_step` the two channels of one.
template <int64_t kPairStep, class T>
void rotate(const T* x, const T* cosines, const T* sines, T sign, int64_t pairs, int64_t half_step, T* y) {
  for (int64_t i = 0; i < pairs; ++i) {
    const T a = x[i * kPairStep], b = x[i * kPairStep + half_step], sine = sign * sines[i];
    y[i * kPairStep] = a * cosines[i] - b * sine;
    y[i * kPairStep + half_step] = b * cosines[i] + a * sine;
  }
}

}  // namespace

void rotary(const Tensor& x, const Tensor& table, RotaryPairs convention, const RotaryPositions& at, bool transposed,
            Tensor& y) {
  const int64_t batch = x.size(0), time = x.size(1), heads = x.size(2), channels = x.size(3);
  const int64_t rows = table.size(1), pairs = table.size(2);
  const RotaryRows places(at, time);
  for (int64_t i = 0; i < batch * time; ++i) {
    const int64_t row = places.row(i / time, i % time);
    check(row >= 0 && row < rows, "rotary: position ", row, " of sequence ", i / time, ", step ", i % time,
          " is outside of the table of ", rows, " positions; build a longer one");
  }
  dispatch_real("rotary", x.dtype(), [&]<class T>() {
    const T *from = x.data<T>(), *cosines = table.data<T>(), *sines = cosines + rows * pairs;
    T* const to = y.data<T>();
    const T sign = transposed ? T(-1) : T(1);
    const Strides in = x.strides(), out = y.strides();
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, heads * channels));
    parallel_for(batch * time, grain, [=](int64_t begin, int64_t end) {
      vectorised([=] {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t sequence = i / time, step = i % time, row = places.row(sequence, step);
          for (int64_t head = 0; head < heads; ++head) {
            const T* source = from + sequence * in[0] + step * in[1] + head * in[2];
            T* target = to + sequence * out[0] + step * out[1] + head * out[2];
            if (convention == RotaryPairs::halves) {
              rotate<1>(source, cosines + row * pairs, sines + row * pairs, sign, pairs, pairs, target);
            } else {
              rotate<2>(source, cosines + row * pairs, sines + row * pairs, sign, pairs, 1, target);
            }
            std::copy_n(source + 2 * pairs, channels - 2 * pairs, target + 2 * pairs);
          }
        }
      });
    });
  });
}

}  // namespace monoid::cpu

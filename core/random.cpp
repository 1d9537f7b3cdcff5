#include "monoid/core/random.h"

#include <cmath>
#include <numbers>

#include "monoid/core/parallel.h"

namespace monoid {
namespace {

constexpr int64_t kGrain = 1 << 14;

double unit53(uint32_t high, uint32_t low) { return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53; }

// value(i, words) for element i from its own four random words: independent of the number of threads.
template <class Value>
Tensor random_tensor(const char* op, const Shape& shape, Generator& generator, DType dtype, Value value) {
  Tensor result = Tensor::empty(shape, dtype);
  const uint64_t first = generator.reserve(4 * result.elements()) / 4;
  dispatch_real(op, dtype, [&]<class T>() {
    T* out = result.data<T>();
    parallel_for(result.elements(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        out[i] = static_cast<T>(value(philox(generator.seed(), first + static_cast<uint64_t>(i))));
      }
    });
  });
  return result;
}

}  // namespace

uint64_t Generator::reserve(int64_t count) {
  const uint64_t first = offset_;
  offset_ += (static_cast<uint64_t>(count) + 3) / 4 * 4;
  return first;
}

double Generator::uniform() {
  const auto words = philox(seed_, reserve(4) / 4);
  return unit53(words[0], words[1]);
}

int64_t Generator::below(int64_t bound) {
  check(bound >= 1, "Generator::below: bound is ", bound, ", wanted at least 1");
  return static_cast<int64_t>(uniform() * static_cast<double>(bound));
}

Tensor random_uniform(const Shape& shape, Generator& generator, double low, double high, DType dtype) {
  return random_tensor("random_uniform", shape, generator, dtype,
                       [=](const auto& words) { return low + (high - low) * unit53(words[0], words[1]); });
}

Tensor random_normal(const Shape& shape, Generator& generator, double mean, double deviation, DType dtype) {
  return random_tensor("random_normal", shape, generator, dtype, [=](const auto& words) {
    const double radius = std::sqrt(-2 * std::log1p(-unit53(words[0], words[1])));
    return mean + deviation * radius * std::cos(2 * std::numbers::pi * unit53(words[2], words[3]));
  });
}

Tensor random_integers(const Shape& shape, Generator& generator, int64_t bound) {
  Tensor result = Tensor::empty(shape, DType::i64);
  int64_t* out = result.data<int64_t>();
  for (int64_t i = 0; i < result.elements(); ++i) out[i] = generator.below(bound);
  return result;
}

}  // namespace monoid

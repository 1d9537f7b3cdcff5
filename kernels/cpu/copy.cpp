// Copy, fill and accumulate: rows of the merged strided shape, long rows cut so that every thread has work.

#include "monoid/core/copy.h"

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/simd.h"
#include "monoid/kernels/cpu/strided.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a task

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, bfloat16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else {
    return static_cast<To>(value);
  }
}

// row(offsets, length) over rows, cut to at most kGrain elements.
template <size_t N, class Row>
void for_each_row(const StridedRows<N>& strided, Row row) {
  const int64_t length = strided.row_length();
  const int64_t cuts = (length + kGrain - 1) / kGrain;
  const int64_t grain = cuts > 1 ? 1 : std::max<int64_t>(1, kGrain / std::max<int64_t>(length, 1));
  parallel_for(strided.rows() * cuts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      auto offsets = strided.row_offsets(i / cuts);
      const int64_t first = i % cuts * kGrain;
      for (size_t n = 0; n < N; ++n) offsets[n] += first * strided.row_steps()[n];
      row(offsets, std::min(kGrain, length - first));
    }
  });
}

template <class From, class To>
void copy_typed(const Tensor& from, Tensor& to) {
  const StridedRows<2> strided(to.shape(), {from.strides(), to.strides()});
  const auto [from_step, to_step] = strided.row_steps();
  const From* source = from.data<From>();
  To* target = to.data<To>();
  for_each_row(strided, [&](const auto& offsets, int64_t length) {
    const From* x = source + offsets[0];
    To* y = target + offsets[1];
    if (from_step == 1 && to_step == 1) {
      vectorised([&] {
        for (int64_t i = 0; i < length; ++i) y[i] = convert<To>(x[i]);
      });
    } else {
      for (int64_t i = 0; i < length; ++i) y[i * to_step] = convert<To>(x[i * from_step]);
    }
  });
}

}  // namespace

void copy(const Tensor& from, Tensor& to) {
  check_shape("copy", "source", from, to.shape());
  dispatch_any(from.dtype(),
               [&]<class From>() { dispatch_any(to.dtype(), [&]<class To>() { copy_typed<From, To>(from, to); }); });
}

void fill(Tensor& x, double value) {
  const StridedRows<1> strided(x.shape(), {x.strides()});
  dispatch_any(x.dtype(), [&]<class T>() {
    const T filler = convert<T>(value);
    T* target = x.data<T>();
    for_each_row(strided, [&](const auto& offsets, int64_t length) {
      for (int64_t i = 0; i < length; ++i) target[offsets[0] + i * strided.row_steps()[0]] = filler;
    });
  });
}

void accumulate(const Tensor& x, Tensor& total) {
  check_shape("accumulate", "summand", x, total.shape());
  check_same_device_and_dtype("accumulate", x, total);
  const StridedRows<2> strided(total.shape(), {x.strides(), total.strides()});
  const auto [x_step, total_step] = strided.row_steps();
  dispatch_real("accumulate", total.dtype(), [&]<class T>() {
    const T* source = x.data<T>();
    T* target = total.data<T>();
    for_each_row(strided, [&](const auto& offsets, int64_t length) {
      const T* in = source + offsets[0];
      T* sum = target + offsets[1];
      if (x_step == 1 && total_step == 1) {
        vectorised([&] {
          for (int64_t i = 0; i < length; ++i) sum[i] += in[i];
        });
      } else {
        for (int64_t i = 0; i < length; ++i) sum[i * total_step] += in[i * x_step];
      }
    });
  });
}

}  // namespace monoid::cpu

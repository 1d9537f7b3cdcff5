// Copy, fill and accumulate: rows of the merged strided shape, long rows cut so that every thread has work.

#include "monoid/core/copy.h"

#include <algorithm>

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

// The axis along which neighbours are adjacent in memory, -1 if there is none.
int dense_axis(const Tensor& x) {
  for (int axis = x.rank() - 1; axis >= 0; --axis) {
    if (x.strides()[axis] == 1 && x.size(axis) > 1) return axis;
  }
  return -1;
}

// Copies where the two sides are dense along different axes, by tiles small enough that every cache line read or
// written is used up while it is near. False if this is not such a copy.
template <class T>
bool copy_transposed(const Tensor& from, Tensor& to) {
  constexpr int64_t kHeight = 32, kWidth = 8;
  const int in_axis = dense_axis(from), out_axis = dense_axis(to);
  if (in_axis < 0 || out_axis < 0 || in_axis == out_axis) return false;
  const StridedRows<2> planes(to.shape().with(in_axis, 1).with(out_axis, 1), {from.strides(), to.strides()});
  const int64_t height = to.size(in_axis), width = to.size(out_axis);
  const int64_t in_step = from.strides()[out_axis], out_step = to.strides()[in_axis];
  const int64_t strips = (height + kHeight - 1) / kHeight, count = planes.rows() * planes.row_length() * strips;
  const T* source = from.data<T>();
  T* target = to.data<T>();
  parallel_for(count, std::max<int64_t>(1, kGrain / (width * std::min(height, kHeight))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t n = begin; n < end; ++n) {
                   const int64_t plane = n / strips, top = n % strips * kHeight, along = plane % planes.row_length();
                   const auto offsets = planes.row_offsets(plane / planes.row_length());
                   const int64_t rows = std::min(kHeight, height - top);
                   const T* in = source + offsets[0] + along * planes.row_steps()[0] + top;
                   T* out = target + offsets[1] + along * planes.row_steps()[1] + top * out_step;
                   for (int64_t left = 0; left < width; left += kWidth) {
                     const int64_t columns = std::min(kWidth, width - left);
                     for (int64_t i = 0; i < rows; ++i) {
                       for (int64_t j = left; j < left + columns; ++j) out[i * out_step + j] = in[i + j * in_step];
                     }
                   }
                 }
               });
  return true;
}

template <class From, class To>
void copy_typed(const Tensor& from, Tensor& to) {
  if constexpr (std::is_same_v<From, To>) {
    if (copy_transposed<To>(from, to)) return;
  }
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

// Norms of rows. Floor: x read, y written, 2 units (with a residual 4). A group of threads owns a row and keeps it in
// registers: mean, variance about the mean, output, passes of which only the first sees memory. The mean is refined by
// the mean of what is left of the row, so that a pair of floats holds it. Squares that leave the range of floats, as
// those of 1e20, 1e-20 or of constant rows, are summed again in double.

#include "monoid/kernels/norm.h"

#include "monoid/kernels/cuda/device/norm.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"

namespace monoid::cuda {
namespace {

template <class T>
struct Forward {
  const T *x, *residual, *weight, *bias;
  T *sum, *y;
  double *mean, *scale;
  RowOffsets x_row, residual_row;
  int64_t rows, length;
  double eps, most_scale;
  int group = 0;  // log2 of its threads
};

// The sum over a row of term(element), computed in `Sum`; all threads of the block call it.
template <class Sum, class T, int V, int kPacks, class Term>
__device__ __forceinline__ Sum row_sum(const RowGroup& group, const RowPart<T, V, kPacks>& x, int64_t length,
                                       Term term) {
  Sum sum[1] = {};
  for_packs<V, kPacks>(group, length, [&](int p, auto column) {
    float values[V];
    x.get(p, column, values);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[0] += term(values[i]);
  });
  group.reduce(sum);
  return sum[0];
}

template <class T, bool kCentred, int V, int kPacks>
__global__ void __launch_bounds__(kMostGroupThreads, sizeof(T) == 2 ? 3 : 2)
    forward(const __grid_constant__ Forward<T> in) {
  wait_for_previous();
  const RowGroup group(in.group);
  const int64_t rows_per_block = group.rows_per_block();
  for (int64_t first = blockIdx.x * rows_per_block; first < in.rows; first += gridDim.x * rows_per_block) {
    const int64_t row = first + group.index_in_block(), length = row < in.rows ? in.length : 0;
    const float count = static_cast<float>(in.length);
    RowPart<T, V, kPacks> x(in.x + in.x_row(row), group, length);
    if (in.residual) {
      const RowPart<T, V, kPacks> residual(in.residual + in.residual_row(row), group, length);
      x.add(residual, in.sum + row * length, group, length);
    }
    Normalise<kCentred> normalise{0, 0, 1};
    double mean = 0;
    if constexpr (kCentred) {
      normalise.high = row_sum<float>(group, x, length, [](float value) { return value; }) / count;
      if constexpr (std::is_same_v<T, float>)  // bf16 has not the digits to need it
        normalise.low = row_sum<float>(group, x, length, [=](float value) { return value - normalise.high; }) / count;
      mean = static_cast<double>(normalise.high) + static_cast<double>(normalise.low);
    }
    const float squares = row_sum<float>(group, x, length, [=](float value) {
      const float difference = normalise(value);
      return difference * difference;
    });
    double scale = 1 / sqrtf(squares / count + static_cast<float>(in.eps));
    if (group.any(length > 0 && !squares_fit(squares))) {
      const double exact_count = static_cast<double>(in.length);
      if constexpr (kCentred)
        mean = row_sum<double>(group, x, length, [](float value) { return static_cast<double>(value); }) / exact_count;
      const double exact_squares = row_sum<double>(group, x, length, [=](float value) {
        const double difference = static_cast<double>(value) - mean;
        return difference * difference;
      });
      scale = 1 / sqrt(exact_squares / exact_count + in.eps);
    }
    scale = fmin(scale, in.most_scale);
    normalise = Normalise<kCentred>(mean, scale);
    if (group.thread() == 0 && length > 0) {
      if constexpr (kCentred) in.mean[row] = mean;
      in.scale[row] = scale;
    }
    const auto write = [&](auto has_all) {
      T* const y = in.y + row * in.length;
      for_packs<V, kPacks>(group, length, [&](int p, auto column) {
        float values[V], weight[V], bias[V];
        x.get(p, column, values);
        if (has_all || in.weight) load(in.weight + column, weight);
        if (kCentred && (has_all || in.bias)) load(in.bias + column, bias);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          values[i] = normalise(values[i]);
          if (has_all || in.weight) values[i] *= weight[i];
          if (kCentred && (has_all || in.bias)) values[i] += bias[i];
        }
        store(y + column, values);
      });
    };
    // Without branches in between all loads of the usual case start at once.
    if (in.weight && (in.bias || !kCentred))
      write(std::true_type{});
    else
      write(std::false_type{});
  }
}

template <bool kCentred>
void run(const char* op, const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias, double eps,
         double floor, Tensor& sum, Tensor& y, double* mean, double* scale) {
  const int64_t rows = row_count(x), length = row_length(x);
  if (x.elements() == 0) return;
  const Launch launch(op, x);
  dispatch_storage(op, x.dtype(), [&]<class T>() {
    Forward<T> in{.x = x.data<T>(),
                  .residual = address_of<T>(residual),
                  .weight = address_of<T>(weight),
                  .bias = address_of<T>(bias),
                  .sum = address_of<T>(sum),
                  .y = y.data<T>(),
                  .mean = mean,
                  .scale = scale,
                  .x_row = RowOffsets(x),
                  .residual_row = residual.defined() ? RowOffsets(residual) : RowOffsets(),
                  .rows = rows,
                  .length = length,
                  .eps = eps,
                  .most_scale = floor > 0 ? 1 / floor : INFINITY};
    const bool wide = rows_in_packs<T>(x, residual, weight, bias, sum, y);
    dispatch_row_parts<T>(length, wide, [&]<int V, int kPacks>(const RowGroups& groups) {
      in.group = groups.log2_size;
      const auto blocks = std::min<int64_t>(blocks_for(rows, groups.rows_per_block()), 1 << 30);
      launch.overlapped(forward<T, kCentred, V, kPacks>, static_cast<unsigned>(blocks), groups.block(), in);
    });
  });
}

}  // namespace

void rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps, double floor, Tensor& sum,
              Tensor& y, Tensor& scale) {
  run<false>("rms_norm", x, residual, weight, {}, eps, floor, sum, y, nullptr, scale.data<double>());
}

void layer_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias, double eps,
                Tensor& sum, Tensor& y, Tensor& mean, Tensor& scale) {
  run<true>("layer_norm", x, residual, weight, bias, eps, 0, sum, y, mean.data<double>(), scale.data<double>());
}

}  // namespace monoid::cuda

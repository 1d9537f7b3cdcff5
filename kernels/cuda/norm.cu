// Norms of rows. Floor: x read, y written, 2 units (with a residual 4). A group of threads owns a row and keeps it in
// registers: mean, variance about the mean, output, three passes of which only the first sees memory. Sums run in
// double, which costs nothing next to memory and takes 1e20 and 1e-30 alike.

#include "monoid/kernels/norm.h"

#include "monoid/kernels/cuda/device/norm.cuh"

namespace monoid::cuda {
namespace {

template <class T>
struct Forward {
  const T *x, *residual, *weight, *bias;
  T *sum, *y;
  double *mean, *scale;
  RowOffsets x_row, residual_row;
  int64_t rows, length;
  double eps, floor;
  int group = 0;
};

template <class T, bool kCentred, int V, int kPacks>
__global__ void __launch_bounds__(kMostGroupThreads, 2) forward(const __grid_constant__ Forward<T> in) {
  const RowGroup group(in.group);
  const int64_t rows_per_block = group.rows_per_block();
  for (int64_t first = blockIdx.x * rows_per_block; first < in.rows; first += gridDim.x * rows_per_block) {
    const int64_t row = first + group.index_in_block(), length = row < in.rows ? in.length : 0;
    const double count = static_cast<double>(in.length);
    RowPart<T, V, kPacks> x(in.x + in.x_row(row), group, length);
    if (in.residual) {
      const RowPart<T, V, kPacks> residual(in.residual + in.residual_row(row), group, length);
      x.add(residual, in.sum + row * length, group, length);
    }
    double mean[1] = {};
    if constexpr (kCentred) {
      for_packs<V, kPacks>(group, length, [&](int p, auto column) {
        float values[V];
        x.get(p, column, values);
#pragma unroll
        for (int i = 0; i < V; ++i) mean[0] += static_cast<double>(values[i]);
      });
      group.reduce(mean);
      mean[0] /= count;
    }
    double squares[1] = {};
    for_packs<V, kPacks>(group, length, [&](int p, auto column) {
      float values[V];
      x.get(p, column, values);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const double difference = static_cast<double>(values[i]) - mean[0];
        squares[0] += difference * difference;
      }
    });
    group.reduce(squares);
    const double deviation = sqrt(squares[0] / count + in.eps), scale = 1 / fmax(deviation, in.floor);
    if (group.thread() == 0 && length > 0) {
      if constexpr (kCentred) in.mean[row] = mean[0];
      in.scale[row] = scale;
    }
    const Normalise<kCentred> normalise(mean[0], scale);
    for_packs<V, kPacks>(group, length, [&](int p, auto column) {
      float values[V], weight[V], bias[V];
      x.get(p, column, values);
      if (in.weight) load(in.weight + column, weight);
      if (in.bias) load(in.bias + column, bias);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        values[i] = normalise(values[i]);
        if (in.weight) values[i] *= weight[i];
        if (in.bias) values[i] += bias[i];
      }
      store(in.y + row * in.length + column, values);
    });
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
                  .floor = floor};
    const bool wide = rows_in_packs<T>(x, residual, weight, bias, sum, y);
    dispatch_row_parts<T>(length, wide, [&]<int V, int kPacks>(const RowGroups& groups) {
      in.group = groups.size;
      const auto blocks = std::min<int64_t>(blocks_for(rows, groups.rows_per_block()), 1 << 30);
      launch(forward<T, kCentred, V, kPacks>, static_cast<unsigned>(blocks), groups.block(), in);
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

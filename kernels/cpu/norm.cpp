// Norms of rows. Floor: x read once, y written once (gradient: x and dy read, dx written); a row stays in the cache
// between its statistics and its output. Squares are summed in double, which costs nothing next to memory and takes
// 1e20 and 1e-30 alike. dweight and dbias: one partial row per kRowsInBlock rows, written in the pass that writes dx,
// then added in order of the blocks; so the sums do not depend on the threads, and their error does not grow with rows.

#include "monoid/kernels/norm.h"

#include <cmath>
#include <vector>

#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/rows.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kRowsInBlock = 64;

// An absent weight or bias is a constant row: one load from the nearest cache instead of a second loop.
template <class T>
class Affine {
 public:
  Affine(const Tensor& given, int64_t length, T neutral)
      : constant_(given.defined() ? 0 : static_cast<size_t>(length), neutral),
        row_(given.defined() ? given.data<T>() : constant_.data()) {}

  const T* row() const { return row_; }

 private:
  std::vector<T> constant_;
  const T* row_;
};

// x -> (x - mean) * scale. The mean of f32 rows is a pair of floats: subtracting the first is exact near an offset,
// the second carries what it rounds away.
template <class T, bool kCentred>
struct Normalise {
  Normalise(double mean, double row_scale)
      : high(static_cast<T>(mean)), low(static_cast<T>(mean - high)), scale(static_cast<T>(row_scale)) {}

  T operator()(T x) const {
    if constexpr (kCentred) return ((x - high) - low) * scale;
    return x * scale;
  }

  T high, low, scale;
};

template <class T>
double mean_square(const T* x, int64_t length, double mean) {
  const double squares = sum_lanes<double>(length, [=](int64_t i) {
    const double difference = static_cast<double>(x[i]) - mean;
    return difference * difference;
  });
  return squares / static_cast<double>(length);
}

template <class T>
double row_mean(const T* x, int64_t length) {
  return sum_lanes<double>(length, [=](int64_t i) { return static_cast<double>(x[i]); }) / static_cast<double>(length);
}

template <bool kCentred, class T, class Scale>
void forward(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias, Tensor& sum, Tensor& y,
             double* means, double* scales, Scale scale_of) {
  const int64_t length = row_length(x);
  const RowOffsets x_row(x), residual_row(residual.defined() ? residual : x);
  const Affine<T> weights(weight, length, T(1)), biases(bias, length, T(0));
  const T *x_data = x.data<T>(), *w = weights.row(), *b = biases.row();
  const T* residual_data = residual.defined() ? residual.data<T>() : nullptr;
  T *y_data = y.data<T>(), *sum_data = residual.defined() ? sum.data<T>() : nullptr;
  for_rows(row_count(x), length, [=](int64_t row) {
    const T* in = x_data + x_row(row);
    if (residual_data) {
      const T* more = residual_data + residual_row(row);
      T* total = sum_data + row * length;
      for (int64_t i = 0; i < length; ++i) total[i] = in[i] + more[i];
      in = total;
    }
    T* out = y_data + row * length;
    const double mean = kCentred ? row_mean(in, length) : 0;
    const double scale = scale_of(mean_square(in, length, mean));
    if (kCentred) means[row] = mean;
    scales[row] = scale;
    const Normalise<T, kCentred> normalise(mean, scale);
    for (int64_t i = 0; i < length; ++i) out[i] = normalise(in[i]) * w[i] + b[i];
  });
}

// totals[i] = sum of the partial rows, in their order.
template <class T>
void add_partials(const Tensor& partials, Tensor& totals) {
  const int64_t rows = row_count(partials), length = row_length(partials);
  const T* partial = partials.data<T>();
  T* total = totals.data<T>();
  constexpr int64_t kColumns = 256;
  parallel_for(length, kColumns, [=](int64_t begin, int64_t end) {
    vectorised([=] {
      double sums[kColumns] = {};
      for (int64_t row = 0; row < rows; ++row) {
        const T* in = partial + row * length;
        for (int64_t i = begin; i < end; ++i) sums[i - begin] += static_cast<double>(in[i]);
      }
      for (int64_t i = begin; i < end; ++i) total[i] = static_cast<T>(sums[i - begin]);
    });
  });
}

// With n = normalised row and g = dy * weight: dx = dsum + scale * (g - mean(g) - n * mean(g * n)), mean(g) for centred
// norms only and the last term unless the row's scale is a constant; dweight += dy * n, dbias += dy.
template <bool kCentred, class T>
void gradient(const Tensor& x, const Tensor& weight, const double* means, const double* scales, double constant_scale,
              const Tensor& dy, const Tensor& dsum, Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const int64_t length = row_length(x), rows = row_count(x);
  const int64_t blocks = (rows + kRowsInBlock - 1) / kRowsInBlock;
  const RowOffsets x_row(x), dy_row(dy), dsum_row(dsum.defined() ? dsum : dy);
  const Affine<T> weights(weight, length, T(1));
  const auto partials_for = [&](const Tensor& total) {
    return total.defined() ? Tensor::zeros({blocks, length}, x.dtype()) : Tensor();
  };
  Tensor weight_partials = partials_for(dweight), bias_partials = partials_for(dbias);
  const auto data = [](Tensor& tensor) { return tensor.defined() ? tensor.data<T>() : nullptr; };
  const T *x_data = x.data<T>(), *dy_data = dy.data<T>(), *w = weights.row();
  const T* dsum_data = dsum.defined() ? dsum.data<T>() : nullptr;
  T *dx_data = data(dx), *weight_data = data(weight_partials), *bias_data = data(bias_partials);
  for_rows(blocks, kRowsInBlock * length, [=](int64_t block) {
    const int64_t last = std::min(rows, (block + 1) * kRowsInBlock);
    for (int64_t row = block * kRowsInBlock; row < last; ++row) {
      const T *in = x_data + x_row(row), *g = dy_data + dy_row(row);
      const Normalise<T, kCentred> normalise(kCentred ? means[row] : 0, scales[row]);
      if (dx_data) {
        T* out = dx_data + row * length;
        const T count = static_cast<T>(length);
        const T mean_g = kCentred ? row_dot(g, w, length) / count : T(0);
        const T slope = sum_lanes<T>(length, [=](int64_t i) { return g[i] * w[i] * normalise(in[i]); }) / count;
        const T mean_gn = scales[row] == constant_scale ? T(0) : slope;
        for (int64_t i = 0; i < length; ++i) {
          T difference = g[i] * w[i] - normalise(in[i]) * mean_gn;
          if constexpr (kCentred) difference -= mean_g;
          out[i] = difference * normalise.scale;
        }
        if (dsum_data) {
          const T* more = dsum_data + dsum_row(row);
          for (int64_t i = 0; i < length; ++i) out[i] += more[i];
        }
      }
      if (weight_data) {
        T* partial = weight_data + block * length;
        for (int64_t i = 0; i < length; ++i) partial[i] += g[i] * normalise(in[i]);
      }
      if (bias_data) {
        T* partial = bias_data + block * length;
        for (int64_t i = 0; i < length; ++i) partial[i] += g[i];
      }
    }
  });
  if (dweight.defined()) add_partials<T>(weight_partials, dweight);
  if (dbias.defined()) add_partials<T>(bias_partials, dbias);
}

constexpr double kNever = -1;  // a scale that no row has

}  // namespace

void rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps, double floor, Tensor& sum,
              Tensor& y, Tensor& scale) {
  dispatch_real("rms_norm", x.dtype(), [&]<class T>() {
    forward<false, T>(x, residual, weight, {}, sum, y, nullptr, scale.data<double>(),
                      [=](double mean_square) { return 1 / std::max(std::sqrt(mean_square + eps), floor); });
  });
}

void rms_norm_gradient(const Tensor& x, const Tensor& weight, const Tensor& scale, const Tensor& dy, const Tensor& dsum,
                       double floor, Tensor& dx, Tensor& dweight) {
  dispatch_real("rms_norm", x.dtype(), [&]<class T>() {
    Tensor no_bias;
    gradient<false, T>(x, weight, nullptr, scale.data<double>(), floor > 0 ? 1 / floor : kNever, dy, dsum, dx, dweight,
                       no_bias);
  });
}

void layer_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, const Tensor& bias, double eps,
                Tensor& sum, Tensor& y, Tensor& mean, Tensor& scale) {
  dispatch_real("layer_norm", x.dtype(), [&]<class T>() {
    forward<true, T>(x, residual, weight, bias, sum, y, mean.data<double>(), scale.data<double>(),
                     [=](double variance) { return 1 / std::sqrt(variance + eps); });
  });
}

void layer_norm_gradient(const Tensor& x, const Tensor& weight, const Tensor& mean, const Tensor& scale,
                         const Tensor& dy, const Tensor& dsum, Tensor& dx, Tensor& dweight, Tensor& dbias) {
  dispatch_real("layer_norm", x.dtype(), [&]<class T>() {
    gradient<true, T>(x, weight, mean.data<double>(), scale.data<double>(), kNever, dy, dsum, dx, dweight, dbias);
  });
}

}  // namespace monoid::cpu

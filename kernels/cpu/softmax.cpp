// Softmax of rows. Floor: x read once, y written once; the three sweeps (maximum, exponentials and their sum, scaling)
// after the first find the row in the cache. Gradients: y and dy read, dx written, two sweeps.

#include "monoid/kernels/softmax.h"

#include <cmath>
#include <limits>

#include "monoid/kernels/cpu/reduce_lanes.h"
#include "monoid/kernels/cpu/rows.h"
#include "monoid/kernels/cpu/shifted.h"
#include "monoid/kernels/cpu/vector_math.h"

namespace monoid::cpu {
namespace {

// body(in, out, length) for each row of x, in the type of x.
template <class Body>
void rows_to_rows(std::string_view op, const Tensor& x, Tensor& y, Body body) {
  dispatch_real(op, x.dtype(), [&]<class T>() {
    const RowOffsets x_row(x);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const int64_t length = row_length(x);
    for_rows(row_count(x), length, [=](int64_t row) { body(in + x_row(row), out + row * length, length); });
  });
}

// body(y, dy, dx, length) for each row.
template <class Body>
void gradient_rows(std::string_view op, const Tensor& y, const Tensor& dy, Tensor& dx, Body body) {
  dispatch_real(op, y.dtype(), [&]<class T>() {
    const RowOffsets y_row(y), dy_row(dy);
    const T *y_data = y.data<T>(), *dy_data = dy.data<T>();
    T* out = dx.data<T>();
    const int64_t length = row_length(y);
    for_rows(row_count(y), length,
             [=](int64_t row) { body(y_data + y_row(row), dy_data + dy_row(row), out + row * length, length); });
  });
}

}  // namespace

void softmax(const Tensor& x, Tensor& y) {
  rows_to_rows("softmax", x, y, []<class T>(const T* in, T* out, int64_t length) {
    const Shifted<T> below(row_max(in, length));
    const T sum = sum_lanes<T>(length, [=](int64_t i) { return out[i] = cpu::exp(below(in[i])); });
    const T scale = sum == 0 ? T(0) : 1 / sum;
    for (int64_t i = 0; i < length; ++i) out[i] *= scale;
  });
}

void log_softmax(const Tensor& x, Tensor& y) {
  rows_to_rows("log_softmax", x, y, []<class T>(const T* in, T* out, int64_t length) {
    const Shifted<T> below(row_max(in, length));
    const T sum = sum_lanes<T>(length, [=](int64_t i) { return cpu::exp(below(in[i])); });
    const T log_sum = sum == 0 ? T(0) : std::log(sum);
    for (int64_t i = 0; i < length; ++i) out[i] = below(in[i]) - log_sum;
  });
}

void softmax_gradient(const Tensor& y, const Tensor& dy, Tensor& dx) {
  gradient_rows("softmax", y, dy, dx, []<class T>(const T* p, const T* dp, T* out, int64_t length) {
    const T mean = row_dot(p, dp, length);
    for (int64_t i = 0; i < length; ++i) out[i] = p[i] * (dp[i] - mean);
  });
}

void log_softmax_gradient(const Tensor& y, const Tensor& dy, Tensor& dx) {
  gradient_rows("log_softmax", y, dy, dx, []<class T>(const T* log_p, const T* dp, T* out, int64_t length) {
    const T sum = row_sum(dp, length);
    const T any = row_max(log_p, length) == -std::numeric_limits<T>::infinity() ? T(0) : T(1);
    for (int64_t i = 0; i < length; ++i) out[i] = any * (dp[i] - cpu::exp(log_p[i]) * sum);
  });
}

}  // namespace monoid::cpu

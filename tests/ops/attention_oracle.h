#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "monoid/ops/attention.h"

namespace monoid::test {

struct AttentionTwin {
  Tensor output, log_sum_exp, q_gradient, k_gradient, v_gradient;
};

/// Attention and its gradient by definition, with the whole matrix of weights, in f64: plain loops.
class AttentionOracle {
 public:
  AttentionOracle(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options)
      : q_(q.to(DType::f64).clone()), k_(k.to(DType::f64).clone()), v_(v.to(DType::f64).clone()), options_(options) {}

  AttentionTwin run(const Tensor& output_cotangent, const Tensor& sum_cotangent) {
    const int64_t batch = q_.size(0), queries = q_.size(1), heads = q_.size(2), group = heads / k_.size(2);
    AttentionTwin twin{Tensor::zeros(q_.shape().with(3, v_.size(3)), DType::f64),
                       Tensor::zeros({batch, heads, queries}, DType::f64), Tensor::zeros_like(q_),
                       Tensor::zeros_like(k_), Tensor::zeros_like(v_)};
    const Tensor dy = output_cotangent.to(DType::f64).clone(), dl = sum_cotangent.to(DType::f64).clone();
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t i = 0; i < queries; ++i) row(twin, dy, dl, b, h, i, h / group);
      }
    }
    return twin;
  }

 private:
  static double* at(Tensor& x, int64_t b, int64_t t, int64_t h) {
    return x.data<double>() + ((b * x.size(1) + t) * x.size(2) + h) * x.size(3);
  }
  static double dot(const double* x, const double* y, int64_t count) {
    double sum = 0;
    for (int64_t c = 0; c < count; ++c) sum += x[c] * y[c];
    return sum;
  }

  bool visible(int64_t b, int64_t i, int64_t j) const {
    const auto limit = [&](const Tensor& counts, int64_t otherwise) -> int64_t {
      return counts.defined() ? counts.to_vector<int32_t>()[static_cast<size_t>(b)] : otherwise;
    };
    const int64_t end = limit(options_.end_key, k_.size(1)), p = i + end - q_.size(1), w = options_.mask.width;
    if (j < limit(options_.first_key, 0) || j >= end) return false;
    switch (options_.mask.kind) {
      case AttentionMask::Kind::full:
        return true;
      case AttentionMask::Kind::causal:
        return j <= p;
      case AttentionMask::Kind::window:
        return j <= p && j > p - w;
      case AttentionMask::Kind::blocks:
        return j <= p && j >= p / w * w - w;
    }
    return false;
  }

  double kept(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (options_.dropout == 0) return 1;
    const int64_t row = (b * q_.size(2) + h) * q_.size(1) + i, length = (k_.size(1) + 3) / 4 * 4;
    const uint32_t bits = random_bits(options_.generator->seed(), static_cast<uint64_t>(row * length + j));
    return static_cast<double>(uniform_unit(bits)) < options_.dropout ? 0 : 1 / (1 - options_.dropout);
  }

  void row(AttentionTwin& twin, Tensor dy, Tensor dl, int64_t b, int64_t h, int64_t i, int64_t g) {
    const int64_t channels = q_.size(3), values = v_.size(3);
    const double scale = options_.scale.value_or(1 / std::sqrt(static_cast<double>(channels)));
    const auto keys = static_cast<size_t>(k_.size(1));
    std::vector<double> score(keys, -std::numeric_limits<double>::infinity()), weight(keys), slope(keys);
    double greatest = score.empty() ? 0 : score[0], sum = 0;
    for (size_t j = 0; j < keys; ++j) {
      const auto key = static_cast<int64_t>(j);
      if (visible(b, i, key)) score[j] = scale * dot(at(q_, b, i, h), at(k_, b, key, g), channels);
      greatest = std::max(greatest, score[j]);
    }
    for (size_t j = 0; j < keys; ++j) {
      if (std::isfinite(score[j])) sum += std::exp(score[j] - greatest);
    }
    const int64_t at_row = (b * q_.size(2) + h) * q_.size(1) + i;
    twin.log_sum_exp.data<double>()[at_row] =
        sum == 0 ? -std::numeric_limits<double>::infinity() : greatest + std::log(sum);
    if (sum == 0) return;
    double* y = at(twin.output, b, i, h);
    const double* cotangent = at(dy, b, i, h);
    double mean = 0;
    for (size_t j = 0; j < keys; ++j) {
      const auto key = static_cast<int64_t>(j);
      weight[j] = std::isfinite(score[j]) ? std::exp(score[j] - greatest) / sum : 0;
      const double dropped = weight[j] * kept(b, h, i, key);
      const double* value = at(v_, b, key, g);
      double* dv = at(twin.v_gradient, b, key, g);
      for (int64_t c = 0; c < values; ++c) {
        y[c] += dropped * value[c];
        dv[c] += dropped * cotangent[c];
      }
      slope[j] = dot(cotangent, value, values) * kept(b, h, i, key);
      mean += weight[j] * slope[j];
    }
    for (size_t j = 0; j < keys; ++j) {
      const auto key = static_cast<int64_t>(j);
      const double ds = weight[j] * (slope[j] - mean + dl.data<double>()[at_row]) * scale;
      for (int64_t c = 0; c < channels; ++c) {
        at(twin.q_gradient, b, i, h)[c] += ds * at(k_, b, key, g)[c];
        at(twin.k_gradient, b, key, g)[c] += ds * at(q_, b, i, h)[c];
      }
    }
  }

  Tensor q_, k_, v_;
  AttentionOptions options_;
};

}  // namespace monoid::test

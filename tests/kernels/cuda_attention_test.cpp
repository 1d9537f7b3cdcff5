#include <cmath>
#include <limits>

#include "monoid/kernels/attention.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/cuda_parity.h"

namespace monoid::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  int64_t batch = 2, queries = 65, keys = 65, heads = 2, key_heads = 2, channel = 64, value_channel = 64;
  AttentionSpec spec{.mask = AttentionMask::causal(), .scale = 0.125};
  std::vector<int32_t> first_key = {}, end_key = {};  // of each sequence
  double deviation = 1;
};

// What the contract says, pair by pair, in f64: output, log_sum_exp, and the gradients of q, k and v.
struct Plain {
  Plain(const Case& c, const Tensors& in) {
    const auto [batch, queries, keys, heads, key_heads, channel, value_channel] =
        std::array{c.batch, c.queries, c.keys, c.heads, c.key_heads, c.channel, c.value_channel};
    std::vector<double> x[5];
    for (size_t i = 0; i < 5; ++i) x[i] = in[i].to_vector<double>();
    std::vector<double> o(static_cast<size_t>(batch * queries * heads * value_channel));
    std::vector<double> sums(static_cast<size_t>(batch * heads * queries), -kInfinity);
    std::vector<double> d[3] = {std::vector<double>(x[0].size()), std::vector<double>(x[1].size()),
                                std::vector<double>(x[2].size())};
    const auto at = [](std::vector<double>& data, int64_t index) { return data.data() + index; };
    for (int64_t b = 0; b < batch; ++b) {
      const auto s = static_cast<size_t>(b);
      const int64_t first = c.first_key.empty() ? 0 : c.first_key[s], end = c.end_key.empty() ? keys : c.end_key[s];
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / key_heads);
        for (int64_t i = 0; i < queries; ++i) {
          const KeyRange seen = c.spec.mask.range(end - queries + i, end);
          const int64_t begin = std::max(seen.first, first), last = std::min(seen.end, end);
          if (begin >= last) continue;
          const double* const q = at(x[0], ((b * queries + i) * heads + h) * channel);
          const double* const go = at(x[3], ((b * queries + i) * heads + h) * value_channel);
          const auto key = [&](int64_t j) { return ((b * keys + j) * key_heads + g) * channel; };
          const auto value = [&](int64_t j) { return ((b * keys + j) * key_heads + g) * value_channel; };
          std::vector<double> p(static_cast<size_t>(last - begin)), factor(p.size(), 1), dp(p.size());
          double greatest = -kInfinity, total = 0, mean = 0;
          for (int64_t j = begin; j < last; ++j) {
            double& score = p[static_cast<size_t>(j - begin)];
            for (int64_t n = 0; n < channel; ++n) score += c.spec.scale * q[n] * x[1][static_cast<size_t>(key(j) + n)];
            greatest = std::max(greatest, score);
          }
          for (double& score : p) total += score = std::exp(score - greatest);
          const auto row = static_cast<size_t>((b * heads + h) * queries + i);
          sums[row] = greatest + std::log(total);
          const uint64_t random = AttentionSpec::dropout_row(c.spec.first, b * heads + h, i, queries, keys);
          double* const out = at(o, ((b * queries + i) * heads + h) * value_channel);
          for (int64_t j = begin; j < last; ++j) {
            const auto n = static_cast<size_t>(j - begin);
            p[n] /= total;
            if (c.spec.dropout > 0) {
              const uint32_t bits = random_bits(c.spec.seed, random + static_cast<uint64_t>(j));
              factor[n] = uniform_unit(bits) < c.spec.dropout ? 0 : 1 / (1 - c.spec.dropout);
            }
            for (int64_t m = 0; m < value_channel; ++m) {
              const double v = x[2][static_cast<size_t>(value(j) + m)];
              out[m] += p[n] * factor[n] * v;
              dp[n] += factor[n] * go[m] * v;
              d[2][static_cast<size_t>(value(j) + m)] += p[n] * factor[n] * go[m];
            }
            mean += p[n] * dp[n];
          }
          for (int64_t j = begin; j < last; ++j) {
            const auto n = static_cast<size_t>(j - begin);
            const double ds = c.spec.scale * p[n] * (dp[n] - mean + x[4][row]);
            double* const dq = at(d[0], ((b * queries + i) * heads + h) * channel);
            for (int64_t m = 0; m < channel; ++m) {
              dq[m] += ds * x[1][static_cast<size_t>(key(j) + m)];
              d[1][static_cast<size_t>(key(j) + m)] += ds * q[m];
            }
          }
        }
      }
    }
    results = {Tensor::from(o, {batch, queries, heads, value_channel}), Tensor::from(sums, {batch, heads, queries}),
               Tensor::from(d[0], in[0].shape()), Tensor::from(d[1], in[1].shape()), Tensor::from(d[2], in[2].shape())};
  }
  Tensors results;
};

// q, k, v and the cotangents of the output and of log_sum_exp, rounded to a dtype.
Tensors inputs_of(const Case& c, DType dtype) {
  return {normal({c.batch, c.queries, c.heads, c.channel}, 1, c.deviation).to(dtype),
          normal({c.batch, c.keys, c.key_heads, c.channel}, 2).to(dtype),
          normal({c.batch, c.keys, c.key_heads, c.value_channel}, 3).to(dtype),
          normal({c.batch, c.queries, c.heads, c.value_channel}, 4).to(dtype),
          normal({c.batch, c.heads, c.queries}, 5).to(DType::f32)};
}

Tensor on_cuda_or_none(const std::vector<int32_t>& values) {
  if (values.empty()) return {};
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).to(kCuda);
}

// The results of the kernels, in the order of Plain, between guards that must stay intact.
Tensors run(const Case& c, const Tensors& in, DType dtype, int64_t skipped = 0) {
  const Tensor first = on_cuda_or_none(c.first_key), end = on_cuda_or_none(c.end_key);
  Guarded output({c.batch, c.queries, c.heads, c.value_channel}, dtype, skipped);
  Guarded sums({c.batch, c.heads, c.queries}, DType::f32, skipped);
  Guarded dq(in[0].shape(), dtype, skipped), dk(in[1].shape(), dtype, skipped), dv(in[2].shape(), dtype, skipped);
  kernels::attention(in[0], in[1], in[2], first, end, c.spec, output.tensor(), sums.tensor());
  kernels::attention_gradient(in[0], in[1], in[2], first, end, c.spec, output.tensor(), sums.tensor(), in[3], in[4],
                              dq.tensor(), dk.tensor(), dv.tensor());
  for (const Guarded* result : {&output, &sums, &dq, &dk, &dv}) result->check_intact();
  return {output.tensor(), sums.tensor(), dq.tensor(), dk.tensor(), dv.tensor()};
}

void check_against_plain(const Case& c, DType dtype, const Tensors& actual, const Tensors& in) {
  const Tensors expected = Plain(c, in).results;
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    const bool sums = i == 1;
    const Tensor mine = actual[i].to(kCpu).to(DType::f64);
    const double tolerance = dtype == DType::bf16 ? (sums ? 1e-4 : 1.5e-2) : 2e-5;
    if (sums)
      check_close(mine, expected[i], tolerance, tolerance);
    else
      check_close_in_norm(mine, expected[i], tolerance);
  }
}

void check_case(const Case& c, DType dtype, int64_t skipped = 0) {
  CAPTURE(name(dtype), c.batch, c.queries, c.keys, c.heads, c.key_heads, c.channel, c.value_channel,
          static_cast<int>(c.spec.mask.kind), c.spec.mask.width);
  const Tensors in = inputs_of(c, dtype);
  Tensors there;
  for (const Tensor& x : in) there.push_back(x.to(kCuda));
  check_against_plain(c, dtype, run(c, there, dtype, skipped), in);
}

const DType kTypes[] = {DType::f32, DType::bf16};

}  // namespace

TEST_CASE("CUDA attention agrees with plain loops for every size of heads", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : kTypes) {
    for (const int64_t channel : {1, 16, 20, 32, 40, 64, 80, 96, 128, 192, 256})
      check_case({.queries = 150, .keys = 150, .channel = channel, .value_channel = channel}, dtype);
    check_case({.channel = 32, .value_channel = 96}, dtype);
    check_case({.channel = 200, .value_channel = 24}, dtype);
  }
}

TEST_CASE("CUDA attention agrees with plain loops for every mask and length", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const AttentionMask mask :
       {AttentionMask::full(), AttentionMask::causal(), AttentionMask::window(1), AttentionMask::window(100),
        AttentionMask::window(1000), AttentionMask::blocks(16), AttentionMask::blocks(100)}) {
    for (const auto& [queries, keys] : {std::array<int64_t, 2>{1, 1},
                                        {1, 130},
                                        {63, 63},
                                        {64, 300},
                                        {65, 65},
                                        {5, 200},
                                        {200, 5},
                                        {333, 333},
                                        {130, 500}}) {
      Case c{.queries = queries, .keys = keys, .channel = 32, .value_channel = 32};
      c.spec.mask = mask;
      check_case(c, dtype);
    }
  }
}

TEST_CASE("CUDA attention shares key heads, pads on the left and ends early", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const auto& [heads, key_heads] : {std::array<int64_t, 2>{7, 1}, {8, 1}, {12, 1}, {8, 4}, {6, 2}, {3, 3}})
    check_case({.queries = 100, .keys = 140, .heads = heads, .key_heads = key_heads}, dtype);
  for (const AttentionMask mask :
       {AttentionMask::full(), AttentionMask::causal(), AttentionMask::window(50), AttentionMask::blocks(32)}) {
    // The second sequence sees nothing, the third has queries before its first key.
    Case c{.batch = 4, .queries = 140, .keys = 300};
    c.first_key = {0, 200, 150, 3}, c.end_key = {300, 200, 190, 1};
    c.spec.mask = mask;
    check_case(c, dtype);
  }
}

TEST_CASE("CUDA attention of few queries over many keys agrees with plain loops", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t channel : {16, 64, 96, 128, 256}) {
    Case c{.queries = 1, .keys = 1100, .heads = 4, .key_heads = 2, .channel = channel, .value_channel = channel};
    check_case(c, dtype);
    c.queries = 3, c.heads = 5, c.key_heads = 1, c.value_channel = 40;
    check_case(c, dtype);
  }
  for (const AttentionMask mask :
       {AttentionMask::full(), AttentionMask::window(1), AttentionMask::window(300), AttentionMask::blocks(512)}) {
    Case c{.batch = 4, .queries = 2, .keys = 1537, .heads = 4, .key_heads = 1};
    c.first_key = {0, 900, 512, 1200}, c.end_key = {1537, 900, 513, 1300};
    c.spec.mask = mask;
    check_case(c, dtype);
  }
}

TEST_CASE("CUDA attention drops the weights that the stream says", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t channel : {32, 64, 128, 256}) {
    Case c{.queries = 133, .keys = 201, .heads = 4, .channel = channel, .value_channel = channel};
    c.spec.dropout = 0.3, c.spec.seed = 99, c.spec.first = 1 << 20;
    check_case(c, dtype);
  }
}

TEST_CASE("CUDA attention takes large, equal and negative scores", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  for (const double scale : {0., -0.125, 1e-3, 10.}) {
    Case c{.queries = 100, .keys = 100};
    c.spec.scale = scale;
    // In f32 a score of thousands has 1e-4 of itself to differ by.
    if (scale < 1) check_case(c, DType::f32);
    check_case(c, DType::bf16);
  }
}

TEST_CASE("CUDA attention takes packed and misaligned views", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t shift : {0, 3, 8}) {
    const Case c{.queries = 90, .keys = 90, .heads = 2, .key_heads = 2, .channel = 40, .value_channel = 40};
    const Tensor packed = normal({2, 90, 3, 2, 48}, 9).to(dtype);
    const auto part = [&](const Tensor& x, int64_t n) { return slice(select(x, 2, n), -1, shift, shift + 40); };
    const Tensors rest = inputs_of(c, dtype);
    Tensors in, there;
    const Tensor packed_there = packed.to(kCuda);
    for (int64_t n = 0; n < 3; ++n) in.push_back(part(packed, n)), there.push_back(part(packed_there, n));
    // The cotangent as a transpose of [batch, head, query, channel], that of the sums broadcast along the heads.
    in.push_back(rest[3]), in.push_back(expand(slice(rest[4], 1, 0, 1), rest[4].shape()));
    there.push_back(transpose(transpose(rest[3], 1, 2).clone().to(kCuda), 1, 2));
    there.push_back(expand(slice(rest[4].to(kCuda), 1, 0, 1), rest[4].shape()));
    check_against_plain(c, dtype, run(c, there, dtype, shift), in);
  }
}

TEST_CASE("CUDA attention gives the same bits on every run", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  for (const int64_t queries : {1, 900}) {
    const Case c{.queries = queries, .keys = 900, .heads = 4, .key_heads = 2, .channel = 64};
    Tensors there;
    for (const Tensor& x : inputs_of(c, dtype)) there.push_back(x.to(kCuda));
    check_repeats([&] { return run(c, there, dtype); });
  }
}

TEST_CASE("CUDA attention of no sequences, queries or keys", "[cuda][attention]") {
  if (!cuda_or_skip()) return;
  for (const DType dtype : kTypes) {
    check_case({.batch = 0}, dtype);
    check_case({.queries = 0}, dtype);
    check_case({.keys = 0}, dtype);
  }
}

}  // namespace monoid::test

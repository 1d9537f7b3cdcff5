// A task is a block of time and of channels of one sequence: its rows stay in L1, so each number crosses memory once,
// forward (x in, y out) and backward (x and dy in, dx out). Rows outside the sequence come from the tail or are a row
// of zeros, so the loops have no edges. The weight's gradient is one partial sum per block, added up in block order.

#include "monoid/kernels/conv.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kTimes = 128, kChannels = 256;  // a block
constexpr int64_t kTaps = 8;                      // taps at once; longer kernels take several rounds

template <class T>
constexpr std::array<T, kChannels> kZeros{};

// Rows of a [batch, time, channel] tensor at one channel; an undefined tensor has none.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t batch_step = 0, time_step = 0;

  template <class Base>
  explicit Rows(Base& x) {
    if (x.defined()) *this = {x.template data<std::remove_const_t<T>>(), x.strides()[0], x.strides()[1]};
  }
  Rows(T* first, int64_t batch, int64_t time) : data(first), batch_step(batch), time_step(time) {}
  T* at(int64_t batch, int64_t time, int64_t channel) const {
    return data + batch * batch_step + time * time_step + channel;
  }
};

// One block of work, and the rows of e = [tail, x] it sees.
struct Block {
  int64_t batch, begin, end, channel, width;  // times begin..end, channels channel..channel + width
};

// Calls body(block, index of its time block) over all blocks; at least one time block, so that tails are seen.
template <class Body>
void for_each_block(const Shape& shape, Body body) {
  const int64_t times = std::max<int64_t>(1, (shape[1] + kTimes - 1) / kTimes);
  const int64_t widths = (shape[2] + kChannels - 1) / kChannels;
  const int64_t elements = std::max<int64_t>(1, std::min(shape[1], kTimes) * std::min(shape[2], kChannels));
  parallel_for(shape[0] * times * widths, (1 << 14) / elements + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t channel = i % widths * kChannels, time = i / widths % times, batch = i / widths / times;
      body(Block{batch, time * kTimes, std::min(shape[1], (time + 1) * kTimes), channel,
                 std::min(kChannels, shape[2] - channel)},
           batch * times + time);
    }
  });
}

// weight [channel, kernel] as [kernel, channel].
template <class T>
std::vector<T> by_tap(const Tensor& weight) {
  const int64_t channels = weight.size(0), kernel = weight.size(1);
  std::vector<T> taps(static_cast<size_t>(channels * kernel));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < kernel; ++j) {
      taps[static_cast<size_t>(j * channels + c)] = weight.data<T>()[c * weight.strides()[0] + j * weight.strides()[1]];
    }
  }
  return taps;
}

// y = first + sum_j w_j row_j over one row of channels; w_j are w_step apart.
template <int kCount, class T>
void weighted_sum(const T* first, const std::array<const T*, kTaps>& rows, const T* w, int64_t w_step, int64_t width,
                  T* __restrict y) {
  for (int64_t c = 0; c < width; ++c) {
    T sum = first ? first[c] : y[c];
    for (int j = 0; j < kCount; ++j) sum += w[j * w_step + c] * rows[static_cast<size_t>(j)][c];
    y[c] = sum;
  }
}

// sum_j += x row_j over one row of channels; the sums are sum_step apart.
template <int kCount, class T>
void add_products(const T* x, const std::array<const T*, kTaps>& rows, int64_t width, T* __restrict sums,
                  int64_t sum_step) {
  for (int64_t c = 0; c < width; ++c) {
    for (int j = 0; j < kCount; ++j) sums[j * sum_step + c] += x[c] * rows[static_cast<size_t>(j)][c];
  }
}

// Calls body.operator()<count>(first tap) for the kernel in rounds of at most kTaps taps.
template <class Body>
void for_tap_rounds(int64_t kernel, Body body) {
  for (int64_t first = 0; first < kernel; first += kTaps) {
    const int64_t count = std::min(kTaps, kernel - first);
    [&]<int... kCounts>(std::integer_sequence<int, kCounts...>) {
      ((count == kCounts + 1 ? body.template operator()<kCounts + 1>(first) : void()), ...);
    }
    (std::make_integer_sequence<int, static_cast<int>(kTaps)>{});
  }
}

}  // namespace

void causal_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& tail, Tensor& y) {
  dispatch_real("causal_depthwise_conv1d", x.dtype(), [&]<class T>() {
    const int64_t kernel = weight.size(1), channels = x.size(2);
    const std::vector<T> taps = by_tap<T>(weight);
    const Rows<const T> inputs(x), before(tail);
    const Rows<T> outputs(y);
    for_each_block(x.shape(), [&](const Block& block, int64_t) {
      const auto input = [&](int64_t time) {
        if (time >= 0) return inputs.at(block.batch, time, block.channel);
        return before.data ? before.at(block.batch, time + kernel - 1, block.channel) : kZeros<T>.data();
      };
      const T* start = bias.defined() ? bias.data<T>() + block.channel : kZeros<T>.data();
      for_tap_rounds(kernel, [&]<int kCount>(int64_t first) {
        vectorised([&] {
          for (int64_t t = block.begin; t < block.end; ++t) {
            std::array<const T*, kTaps> rows{};
            for (int j = 0; j < kCount; ++j) rows[static_cast<size_t>(j)] = input(t - kernel + 1 + first + j);
            weighted_sum<kCount>(first == 0 ? start : nullptr, rows, taps.data() + first * channels + block.channel,
                                 channels, block.width, outputs.at(block.batch, t, block.channel));
          }
        });
      });
    });
  });
}

void causal_conv_gradient(const Tensor& dy, const Tensor& dfinal, const Tensor& x, const Tensor& weight,
                          const Tensor& tail, Tensor& dx, Tensor& dtail, Tensor& dweight, Tensor& dbias) {
  dispatch_real("causal_depthwise_conv1d", dy.dtype(), [&]<class T>() {
    const int64_t kernel = weight.size(1), channels = dy.size(2), time = dy.size(1);
    const int64_t before_first = kernel - 1;  // e[before_first] is x[0]
    const std::vector<T> taps = by_tap<T>(weight);
    const Rows<const T> cotangents(dy), after(dfinal), inputs(x), before(tail);
    const Rows<T> gradients(dx), tail_gradients(dtail);
    const bool sums_wanted = dweight.defined() || dbias.defined();
    const int64_t blocks = dy.size(0) * std::max<int64_t>(1, (time + kTimes - 1) / kTimes);
    // partial[block][tap][channel]; tap `kernel` is the bias.
    std::vector<T> partial(static_cast<size_t>(sums_wanted ? blocks * (kernel + 1) * channels : 0));

    for_each_block(dy.shape(), [&](const Block& block, int64_t index) {
      const auto cotangent = [&](int64_t t) {
        return t >= 0 && t < time ? cotangents.at(block.batch, t, block.channel) : kZeros<T>.data();
      };
      // de[s] = sum_j w[j] dy[s - j], plus the final tail's gradient where e[s] is still in it.
      const auto input_gradient = [&](int64_t s, T* out) {
        const bool in_final = s >= time && after.data;
        const T* start = in_final ? after.at(block.batch, s - time, block.channel) : kZeros<T>.data();
        for_tap_rounds(kernel, [&]<int kCount>(int64_t first) {
          std::array<const T*, kTaps> rows{};
          for (int j = 0; j < kCount; ++j) rows[static_cast<size_t>(j)] = cotangent(s - first - j);
          weighted_sum<kCount>(first == 0 ? start : nullptr, rows, taps.data() + first * channels + block.channel,
                               channels, block.width, out);
        });
      };
      vectorised([&] {
        if (tail_gradients.data && block.begin == 0) {
          for (int64_t s = 0; s < before_first; ++s) {
            input_gradient(s, tail_gradients.at(block.batch, s, block.channel));
          }
        }
        if (gradients.data) {
          for (int64_t t = block.begin; t < block.end; ++t) {
            input_gradient(t + before_first, gradients.at(block.batch, t, block.channel));
          }
        }
      });
      if (!sums_wanted) return;
      const auto input = [&](int64_t t) {
        if (t >= 0) return inputs.at(block.batch, t, block.channel);
        return before.data ? before.at(block.batch, t + before_first, block.channel) : kZeros<T>.data();
      };
      T* sums = partial.data() + index * (kernel + 1) * channels + block.channel;
      for_tap_rounds(kernel, [&]<int kCount>(int64_t first) {
        vectorised([&] {
          for (int64_t t = block.begin; t < block.end; ++t) {
            std::array<const T*, kTaps> rows{};
            for (int j = 0; j < kCount; ++j) rows[static_cast<size_t>(j)] = input(t - before_first + first + j);
            add_products<kCount>(cotangent(t), rows, block.width, sums + first * channels, channels);
          }
        });
      });
      vectorised([&] {
        T* bias_sums = sums + kernel * channels;
        for (int64_t t = block.begin; t < block.end; ++t) {
          const T* row = cotangent(t);
          for (int64_t c = 0; c < block.width; ++c) bias_sums[c] += row[c];
        }
      });
    });

    if (!sums_wanted) return;
    parallel_for((kernel + 1) * channels, kChannels, [&](int64_t begin, int64_t end) {
      std::array<double, kChannels> totals{};
      for (int64_t block = 0; block < blocks; ++block) {
        const T* row = partial.data() + block * (kernel + 1) * channels;
        vectorised([&] {
          for (int64_t i = begin; i < end; ++i) totals[static_cast<size_t>(i - begin)] += row[i];
        });
      }
      for (int64_t i = begin; i < end; ++i) {
        const int64_t tap = i / channels, channel = i % channels;
        const T total = static_cast<T>(totals[static_cast<size_t>(i - begin)]);
        if (tap == kernel) {
          if (dbias.defined()) dbias.data<T>()[channel] = total;
        } else if (dweight.defined()) {
          dweight.data<T>()[channel * kernel + tap] = total;
        }
      }
    });
  });
}

}  // namespace monoid::cpu

// A task is a block of time and of channels of one sequence. Four rows of outputs share their inputs and the taps in
// registers, and rows lie in L1 until the last tap is past them, so each number crosses memory once: x in, y out;
// backward dy and x in, dx out. Rows outside the sequence come from the tail or are a row of zeros, and outputs past
// the block go to a spare row, so the loops have no edges. The weight's gradient is one partial sum per block, and
// these are added in block order.

#include "monoid/kernels/conv.h"

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>
#include <vector>

#include "monoid/core/parallel.h"
#include "monoid/kernels/cpu/lanes.h"

namespace monoid::cpu {
namespace {

constexpr int64_t kTimes = 128, kChannels = 512;  // a block
constexpr int kTaps = 4;                          // taps at once; longer kernels take several rounds
constexpr int kRows = 4;                          // output rows at once

template <class T, int kCount>
using RowsOf = std::array<T*, static_cast<size_t>(kCount)>;

template <class T>
constexpr std::array<T, kChannels> kZeros{};

struct Block {
  int64_t batch, begin, end, channel, width;  // times begin..end, channels channel..channel + width
};

// The rows of a [batch, time, channel] tensor; an undefined one has none.
template <class T>
struct Rows {
  template <class Base>
  explicit Rows(Base& x) {
    if (!x.defined()) return;
    data = x.template data<std::remove_const_t<T>>();
    batch_step = x.strides()[0];
    time_step = x.strides()[1];
  }
  explicit operator bool() const { return data; }
  T* at(const Block& block, int64_t time) const {
    return data + block.batch * batch_step + time * time_step + block.channel;
  }

  T* data = nullptr;
  int64_t batch_step = 0, time_step = 0;
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

// Calls body.operator()<count>(first tap) for the kernel in rounds of at most kTaps taps.
template <class Body>
void for_tap_rounds(int64_t kernel, Body body) {
  for (int64_t first = 0; first < kernel; first += kTaps) {
    const int64_t count = std::min<int64_t>(kTaps, kernel - first);
    [&]<int... kCounts>(std::integer_sequence<int, kCounts...>) {
      ((count == kCounts + 1 ? body.template operator()<kCounts + 1>(first) : void()), ...);
    }
    (std::make_integer_sequence<int, kTaps>{});
  }
}

// Calls body(c) for whole vectors of channels, and body(c, lanes) for the rest.
template <class L, class Body>
void for_lanes(int64_t width, Body body) {
  int64_t c = 0;
  for (; c + L::kCount <= width; c += L::kCount) body(c);
  if (c < width) body(c, width - c);
}

template <int kCount, class Row>
auto rows_of(Row row) {
  std::array<decltype(row(0)), static_cast<size_t>(kCount)> rows;
  for (int i = 0; i < kCount; ++i) rows[static_cast<size_t>(i)] = row(i);
  return rows;
}

// y_r = start_r + sum_j w_j x_{r + j}; the taps w_j are step apart.
template <class L, int kCount, class T>
void convolve(const RowsOf<const T, kRows>& start, const RowsOf<const T, kRows + kCount - 1>& x, const T* taps,
              int64_t step, int64_t width, const RowsOf<T, kRows>& y) {
  for_lanes<L>(width, [&](int64_t c, auto... lanes) {
    typename L::Vector sum[kRows], w[kCount], in;
    unrolled<kRows>([&](auto r) { L::load(sum[r], start[r] + c, lanes...); });
    unrolled<kCount>([&](auto j) { L::load(w[j], taps + j * step + c, lanes...); });
    unrolled<kRows + kCount - 1>([&](auto i) {
      L::load(in, x[i] + c, lanes...);
      unrolled<kRows>([&](auto r) {
        if constexpr (i >= r && i < r + kCount) sum[r] += w[i - r] * in;
      });
    });
    unrolled<kRows>([&](auto r) { L::store(sum[r], y[r] + c, lanes...); });
  });
}

// The same from dy to de, and with the same rows of dy: dw_j += sum_r e_r dy_{r + j}.
template <class L, int kCount, class T>
void convolve_back(const RowsOf<const T, kRows>& start, const RowsOf<const T, kRows + kCount - 1>& dy, const T* taps,
                   const RowsOf<const T, kRows>& e, int64_t step, int64_t width, const RowsOf<T, kRows>& de, T* dw) {
  for_lanes<L>(width, [&](int64_t c, auto... lanes) {
    typename L::Vector sum[kRows], w[kCount], input[kRows], dtap[kCount], in;
    unrolled<kRows>([&](auto r) {
      L::load(sum[r], start[r] + c, lanes...);
      L::load(input[r], e[r] + c, lanes...);
    });
    unrolled<kCount>([&](auto j) {
      L::load(w[j], taps + j * step + c, lanes...);
      L::load(dtap[j], dw + j * step + c, lanes...);
    });
    unrolled<kRows + kCount - 1>([&](auto i) {
      L::load(in, dy[i] + c, lanes...);
      unrolled<kRows>([&](auto r) {
        if constexpr (i >= r && i < r + kCount) {
          sum[r] += w[i - r] * in;
          dtap[i - r] += input[r] * in;
        }
      });
    });
    unrolled<kRows>([&](auto r) { L::store(sum[r], de[r] + c, lanes...); });
    unrolled<kCount>([&](auto j) { L::store(dtap[j], dw + j * step + c, lanes...); });
  });
}

// weight [channel, kernel] as [kernel, channel], the last tap first if flipped.
template <class T>
std::vector<T> by_tap(const Tensor& weight, bool flipped) {
  const int64_t channels = weight.size(0), kernel = weight.size(1);
  const int64_t channel_step = weight.strides()[0], tap_step = weight.strides()[1];
  std::vector<T> taps(static_cast<size_t>(channels * kernel));
  for (int64_t j = 0; j < kernel; ++j) {
    const T* from = weight.data<T>() + (flipped ? kernel - 1 - j : j) * tap_step;
    for (int64_t c = 0; c < channels; ++c) taps[static_cast<size_t>(j * channels + c)] = from[c * channel_step];
  }
  return taps;
}

// e, the tail followed by x; zeros where there is no tail and past the end.
template <class T>
struct Extended {
  Rows<const T> x, tail;
  int64_t before, time;  // rows of the tail and of x

  const T* at(const Block& block, int64_t s) const {
    if (s >= before) return s - before < time ? x.at(block, s - before) : kZeros<T>.data();
    return tail ? tail.at(block, s) : kZeros<T>.data();
  }
};

// The block partials [block][sum], added in double; store(i, total of sum i).
template <class T, class Store>
void add_partials(const std::vector<T>& partials, int64_t sums, Store store) {
  const int64_t blocks = static_cast<int64_t>(partials.size()) / std::max<int64_t>(sums, 1);
  parallel_for(sums, kChannels, [&](int64_t begin, int64_t end) {
    std::array<double, kChannels> totals{};
    for (int64_t block = 0; block < blocks; ++block) {
      const T* row = partials.data() + block * sums + begin;
      vectorised([&] {
        for (int64_t i = 0; i < end - begin; ++i) totals[static_cast<size_t>(i)] += row[i];
      });
    }
    for (int64_t i = begin; i < end; ++i) store(i, static_cast<T>(totals[static_cast<size_t>(i - begin)]));
  });
}

}  // namespace

void causal_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& tail, Tensor& y) {
  dispatch_real("causal_depthwise_conv1d", x.dtype(), [&]<class T>() {
    const int64_t kernel = weight.size(1), channels = x.size(2);
    const std::vector<T> taps = by_tap<T>(weight, false);
    const Extended<T> e{Rows<const T>(x), Rows<const T>(tail), kernel - 1, x.size(1)};
    const Rows<T> outputs(y);
    const T* bias_data = bias.defined() ? bias.data<T>() : nullptr;
    for_each_block(x.shape(), [&](const Block& block, int64_t) {
      std::array<T, kChannels> spare;
      const T* bias_row = bias_data ? bias_data + block.channel : kZeros<T>.data();
      with_lanes<T>([&]<class L>() {
        for_tap_rounds(kernel, [&]<int kCount>(int64_t first) {
          for (int64_t t = block.begin; t < block.end; t += kRows) {
            const auto out =
                rows_of<kRows>([&](int r) { return t + r < block.end ? outputs.at(block, t + r) : spare.data(); });
            const auto start =
                rows_of<kRows>([&](int r) { return first == 0 ? bias_row : out[static_cast<size_t>(r)]; });
            const auto in = rows_of<kRows + kCount - 1>([&](int i) { return e.at(block, t + first + i); });
            convolve<L, kCount>(start, in, taps.data() + first * channels + block.channel, channels, block.width, out);
          }
        });
      });
    });
  });
}

void causal_conv_gradient(const Tensor& dy, const Tensor& dfinal, const Tensor& x, const Tensor& weight,
                          const Tensor& tail, Tensor& dx, Tensor& dtail, Tensor& dweight, Tensor& dbias) {
  dispatch_real("causal_depthwise_conv1d", dy.dtype(), [&]<class T>() {
    const int64_t kernel = weight.size(1), channels = dy.size(2), time = dy.size(1), sums = (kernel + 1) * channels;
    const int64_t blocks = dy.size(0) * std::max<int64_t>(1, (time + kTimes - 1) / kTimes);
    const std::vector<T> taps = by_tap<T>(weight, true);
    const Rows<const T> cotangents(dy), final_cotangents(dfinal);
    const Extended<T> inputs{Rows<const T>(x), Rows<const T>(tail), kernel - 1, time};
    const Rows<T> gradients(dx), tail_gradients(dtail);
    std::vector<T> partials(static_cast<size_t>(blocks * sums));  // [block][tap, flipped; last the bias][channel]

    for_each_block(dy.shape(), [&](const Block& block, int64_t index) {
      std::array<T, kChannels> spare{};
      T* dtaps = partials.data() + index * sums + block.channel;
      // de_s = sum_j w_j dy_{s - j} for the rows s of e that end in this block, the tail's with the first block. The
      // final tail is the end of e, so its gradient is where these sums start.
      const int64_t s_begin = block.begin == 0 ? 0 : block.begin + kernel - 1, s_end = block.end + kernel - 1;
      const auto start_row = [&](int64_t s) {
        return s >= time && s < s_end && final_cotangents ? final_cotangents.at(block, s - time) : kZeros<T>.data();
      };
      const auto gradient_row = [&](int64_t s) {
        const bool in_tail = s < kernel - 1;
        const Rows<T>& target = in_tail ? tail_gradients : gradients;
        return s < s_end && target ? target.at(block, in_tail ? s : s - kernel + 1) : spare.data();
      };
      with_lanes<T>([&]<class L>() {
        for_tap_rounds(kernel, [&]<int kCount>(int64_t first) {
          for (int64_t s = s_begin; s < s_end; s += kRows) {
            const auto out = rows_of<kRows>([&](int r) { return gradient_row(s + r); });
            const auto start = rows_of<kRows>(
                [&](int r) -> const T* { return first == 0 ? start_row(s + r) : out[static_cast<size_t>(r)]; });
            const auto e =
                rows_of<kRows>([&](int r) { return s + r < s_end ? inputs.at(block, s + r) : kZeros<T>.data(); });
            const auto in = rows_of<kRows + kCount - 1>([&](int i) {
              const int64_t t = s - kernel + 1 + first + i;
              return t >= 0 && t < time ? cotangents.at(block, t) : kZeros<T>.data();
            });
            convolve_back<L, kCount>(start, in, taps.data() + first * channels + block.channel, e, channels,
                                     block.width, out, dtaps + first * channels);
          }
        });
      });
      vectorised([&] {
        T* total = dtaps + kernel * channels;
        for (int64_t t = block.begin; t < block.end; ++t) {
          const T* row = cotangents.at(block, t);
          for (int64_t c = 0; c < block.width; ++c) total[c] += row[c];
        }
      });
    });

    add_partials(partials, sums, [&](int64_t i, T total) {
      const int64_t tap = kernel - 1 - i / channels, channel = i % channels;
      if (tap >= 0 && dweight.defined()) dweight.data<T>()[channel * kernel + tap] = total;
      if (tap < 0 && dbias.defined()) dbias.data<T>()[channel] = total;
    });
  });
}

}  // namespace monoid::cpu

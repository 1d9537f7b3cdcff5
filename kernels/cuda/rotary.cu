// Rotary embeddings: a thread for some pairs, sixteen bytes of each of their channels where addresses allow; the heads
// of a time step share a row of the table, which the caches hold. Floor: x read, y written.

#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/rotary.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;

struct Steps {
  int64_t batch, time, head;
  explicit Steps(const Tensor& x) : batch(x.strides()[0]), time(x.strides()[1]), head(x.strides()[2]) {}
  template <int N, class T>
  bool aligned(const T* address) const {
    return aligned_for<N>(address, batch) && aligned_for<N>(address, time) && aligned_for<N>(address, head);
  }
};

template <class T>
struct Arguments {
  const T* x;
  T* y;
  Steps in, out;
  const float* table;
  int64_t positions;
  RotaryRows rows;
  uint32_t time, heads, pairs, packs, items;  // packs: of a head; items: packs altogether
  uint32_t channels;
  float sign;
  FaultRecord* faults;
};

template <int N>
__device__ __forceinline__ void load_table(const float* from, float (&to)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) load<4>(from + i, reinterpret_cast<float(&)[4]>(to[i]));
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = from[i];
  }
}

// kCount channels; single pairs come from any address.
template <int kCount, bool kWhole, class T>
__device__ __forceinline__ void load_channels(const T* from, float (&to)[kCount]) {
  if constexpr (kWhole) {
    load<kCount>(from, to);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = widen(from[i]);
  }
}
template <int kCount, bool kWhole, class T>
__device__ __forceinline__ void store_channels(T* to, const float (&from)[kCount]) {
  if constexpr (kWhole) {
    store<kCount>(to, from);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = narrow<T>(from[i]);
  }
}

// kPairs pairs a thread: [a | b] packs apart (halves) or ab ab in one pack; what is not rotated comes after, a pack of
// as many channels a thread.
template <class T, bool kHalves, int kPairs>
__global__ void __launch_bounds__(kThreads) rotate(const __grid_constant__ Arguments<T> of) {
  constexpr int kChannels = kHalves ? kPairs : 2 * kPairs;  // of a load
  constexpr bool kWhole = kPairs > 1;
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= of.items) return;
  const uint32_t pack = item % of.packs, head = item / of.packs % of.heads, both = item / of.packs / of.heads;
  const uint32_t step = both % of.time, sequence = both / of.time;
  const T* x = of.x + sequence * of.in.batch + step * of.in.time + head * of.in.head;
  T* y = of.y + sequence * of.out.batch + step * of.out.time + head * of.out.head;
  const uint32_t rotating = of.pairs / kPairs;
  if (pack >= rotating) {
    const uint32_t channel = 2 * of.pairs + (pack - rotating) * kChannels;
    if (channel + kChannels <= of.channels) {
      float rest[kChannels];
      load_channels<kChannels, kWhole>(x + channel, rest);
      store_channels<kChannels, kWhole>(y + channel, rest);
    } else {
      for (uint32_t c = channel; c < of.channels; ++c) y[c] = x[c];
    }
    return;
  }
  int64_t row = of.rows.row(sequence, step);
  if (row < 0 || row >= of.positions) {
    report(of.faults, Fault::rotary_position, both, static_cast<double>(row), static_cast<double>(of.positions));
    row = 0;
  }
  float cosines[kPairs], sines[kPairs];
  const float* cosine = of.table + row * of.pairs + pack * kPairs;
  load_table(cosine, cosines);
  load_table(cosine + of.positions * of.pairs, sines);
  if constexpr (kHalves) {
    float a[kPairs], b[kPairs], u[kPairs], v[kPairs];
    load_channels<kPairs, kWhole>(x + pack * kPairs, a);
    load_channels<kPairs, kWhole>(x + of.pairs + pack * kPairs, b);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float sine = of.sign * sines[i];
      u[i] = a[i] * cosines[i] - b[i] * sine;
      v[i] = b[i] * cosines[i] + a[i] * sine;
    }
    store_channels<kPairs, kWhole>(y + pack * kPairs, u);
    store_channels<kPairs, kWhole>(y + of.pairs + pack * kPairs, v);
  } else {
    float ab[kChannels], uv[kChannels];
    load_channels<kChannels, kWhole>(x + pack * kChannels, ab);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float sine = of.sign * sines[i];
      uv[2 * i] = ab[2 * i] * cosines[i] - ab[2 * i + 1] * sine;
      uv[2 * i + 1] = ab[2 * i + 1] * cosines[i] + ab[2 * i] * sine;
    }
    store_channels<kChannels, kWhole>(y + pack * kChannels, uv);
  }
}

template <class T, bool kHalves>
void run(const Launch& launch, Arguments<T> of, int64_t batch) {
  constexpr int kPairs = kHalves ? kWide<T> : kWide<T> / 2, kChannels = kWide<T>;
  const bool wide = of.pairs % kPairs == 0 && of.pairs % 4 == 0 && of.channels % kChannels == 0 &&
                    of.in.template aligned<kChannels>(of.x) && of.out.template aligned<kChannels>(of.y);
  const auto start = [&](auto kernel, uint32_t pairs, uint32_t channels) {
    of.packs = of.pairs / pairs + (of.channels - 2 * of.pairs + channels - 1) / channels;
    const int64_t items = batch * of.time * of.heads * of.packs;
    check(items < int64_t{1} << 32, "rotary: x has more than 2^32 packs of channels; rotate it in parts");
    of.items = static_cast<uint32_t>(items);
    launch(kernel, static_cast<unsigned>(blocks_for(items, kThreads)), kThreads, of);
  };
  if (wide) {
    start(rotate<T, kHalves, kPairs>, kPairs, kChannels);
  } else {
    start(rotate<T, kHalves, 1>, 1, kHalves ? 1 : 2);
  }
}

}  // namespace

void rotary(const Tensor& x, const Tensor& table, RotaryPairs convention, const RotaryPositions& at, bool transposed,
            Tensor& y) {
  const Launch launch("rotary", x);
  if (x.elements() == 0) return;
  dispatch_storage("rotary", x.dtype(), [&]<class T>() {
    const Arguments<T> of{x.data<T>(),
                          y.data<T>(),
                          Steps(x),
                          Steps(y),
                          table.data<float>(),
                          table.size(1),
                          RotaryRows(at, x.size(1)),
                          static_cast<uint32_t>(x.size(1)),
                          static_cast<uint32_t>(x.size(2)),
                          static_cast<uint32_t>(table.size(2)),
                          0,
                          0,
                          static_cast<uint32_t>(x.size(3)),
                          transposed ? -1.0f : 1.0f,
                          fault_record(launch.index())};
    if (convention == RotaryPairs::halves) {
      run<T, true>(launch, of, x.size(0));
    } else {
      run<T, false>(launch, of, x.size(0));
    }
  });
}

}  // namespace monoid::cuda

// Copy with any strides and conversion, fill and accumulate: maps (map.cuh), except where the two sides of a copy are
// dense along different axes. Such a copy goes through shared memory by square tiles, so that both sides move whole
// lines. Floor: one read, one write.

#include "monoid/core/copy.h"

#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/map.cuh"

namespace monoid::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kTileThreads = 256;
constexpr int kTileRows = kTileThreads / kWarp;
constexpr int64_t kShortest = 16;  // below it a tile is too empty

template <class To>
struct Convert {
  template <class From>
  __device__ Register<To> operator()(From value) const {
    if constexpr (std::is_same_v<To, bool>) {
      return value != From(0);
    } else {
      return static_cast<Register<To>>(value);
    }
  }
};

struct Keep {
  template <class T>
  __device__ T operator()(T value) const {
    return value;
  }
};

template <class T>
struct Constant {
  Register<T> value;
  __device__ Register<T> operator()() const { return value; }
};

struct Add {
  __device__ float operator()(float total, float x) const { return total + x; }
};

// The axis along which neighbours are adjacent in memory, -1 if there is none.
int dense_axis(const Tensor& x) {
  for (int axis = x.rank() - 1; axis >= 0; --axis) {
    if (x.strides()[axis] == 1 && x.size(axis) > 1) return axis;
  }
  return -1;
}

// The planes of such a copy: `height` along the dense axis of the source, `width` along that of the target.
struct Planes {
  uint32_t height, width, tiles_down, tiles_across;
  int64_t from_step, to_step;  // along the width in the source, along the height in the target
  Axes<2> others;
};

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    transpose_tiles(const __grid_constant__ Planes planes, const T* from, T* to) {
  // Padded by one bank, so that columns are read without conflicts.
  __shared__ T tile[kTile][kTile + std::max(1, 4 / static_cast<int>(sizeof(T)))];
  const uint32_t down = blockIdx.x / planes.tiles_across;
  const uint32_t left = (blockIdx.x - down * planes.tiles_across) * kTile, top = down % planes.tiles_down * kTile;
  const int x = threadIdx.x % kWarp, y = threadIdx.x / kWarp;
  int64_t at[2];
  planes.others.offsets(down / planes.tiles_down, at);
  from += at[0] + top + left * planes.from_step;
  to += at[1] + left + top * planes.to_step;
  const int height = min(kTile, planes.height - top), width = min(kTile, planes.width - left);
#pragma unroll
  for (int j = 0; j < kTile; j += kTileRows) {
#pragma unroll
    for (int i = 0; i < kTile; i += kWarp) {
      if (y + j < width && x + i < height) tile[y + j][x + i] = from[(y + j) * planes.from_step + x + i];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kTile; i += kTileRows) {
#pragma unroll
    for (int j = 0; j < kTile; j += kWarp) {
      if (y + i < height && x + j < width) to[(y + i) * planes.to_step + x + j] = tile[x + j][y + i];
    }
  }
}

// False if this is not a copy between two dense axes that are long enough for tiles.
bool copy_transposed(const Tensor& from, Tensor& to) {
  const int in_axis = dense_axis(from), out_axis = dense_axis(to);
  if (in_axis < 0 || out_axis < 0 || in_axis == out_axis) return false;
  const int64_t height = to.size(in_axis), width = to.size(out_axis);
  const int64_t tiles_down = blocks_for(height, kTile), tiles_across = blocks_for(width, kTile);
  const Axes<2> others(to.shape().with(in_axis, 1).with(out_axis, 1), {from.strides(), to.strides()});
  const int64_t blocks = others.count() * tiles_down * tiles_across;
  if (std::min(height, width) < kShortest || std::max({height, width, blocks}) > kMostIndices) return false;
  const Planes planes{static_cast<uint32_t>(height),
                      static_cast<uint32_t>(width),
                      static_cast<uint32_t>(tiles_down),
                      static_cast<uint32_t>(tiles_across),
                      from.strides()[out_axis],
                      to.strides()[in_axis],
                      others};
  dispatch_bits(to.dtype(), [&]<class T>() {
    Launch("copy", to)(transpose_tiles<T>, static_cast<unsigned>(blocks), kTileThreads, planes,
                       static_cast<const T*>(from.raw()), static_cast<T*>(to.raw()));
  });
  return true;
}

}  // namespace

void copy(const Tensor& from, Tensor& to) {
  check_shape("copy", "source", from, to.shape());
  if (from.dtype() == to.dtype()) {
    if (copy_transposed(from, to)) return;
    return dispatch_bits(to.dtype(), [&]<class T>() { map<T, T>("copy", Keep(), to, from); });
  }
  dispatch_any(from.dtype(), [&]<class From>() {
    dispatch_any(to.dtype(), [&]<class To>() {
      if constexpr (!std::is_same_v<From, To>) map<To, From>("copy", Convert<To>(), to, from);
    });
  });
}

void fill(Tensor& x, double value) {
  dispatch_any(x.dtype(), [&]<class T>() {
    const auto filler = std::is_same_v<T, bool> ? value != 0 : static_cast<Register<T>>(value);
    map<T>("fill", Constant<T>{static_cast<Register<T>>(filler)}, x);
  });
}

void accumulate(const Tensor& x, Tensor& total) {
  check_shape("accumulate", "summand", x, total.shape());
  check_same_device_and_dtype("accumulate", x, total);
  dispatch_storage("accumulate", total.dtype(), [&]<class T>() { map<T, T, T>("accumulate", Add(), total, total, x); });
}

}  // namespace monoid::cuda

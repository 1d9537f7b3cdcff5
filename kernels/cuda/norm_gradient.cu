// Gradients of the norms. With n = normalised row and g = dy * weight:
//   dx = dsum + scale * (g - mean(g) - n * mean(g * n)),   dweight = sum over rows of dy * n,   dbias = of dy.
// Floor: x and dy read, dx written, 3 units (with dsum 4). A block stays on the GPU and takes every gridDim-th batch of
// rows, of which the next is on its way into shared memory; each thread keeps the sums of its columns in registers, and
// the block leaves one row of partial sums.

#include "monoid/kernels/cuda/device/async_copy.cuh"
#include "monoid/kernels/cuda/device/norm.cuh"
#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/partials.h"
#include "monoid/kernels/norm.h"

namespace monoid::cuda {
namespace {

template <class T>
struct Backward {
  const T *x, *weight, *dy, *dsum;
  const double *mean, *scale;
  T* dx;
  float* partials;  // [blocks, dweight and for a centred norm dbias, length]
  RowOffsets x_row, dy_row, dsum_row;
  int64_t rows, length;
  double constant_scale;      // of rows whose scale does not depend on x
  int group = 0, stages = 0;  // log2 of the threads of a group; rows ahead + 1
};

// A thread's part of a row that it copied into shared memory.
template <class T, int V>
struct StagedPart {
  __device__ void fetch(const T* row, const RowGroup& group, int p) const {
    copy_async(packs + p * blockDim.x, row + (p * group.size() + group.thread()) * V);
  }
  __device__ __forceinline__ void get(int p, int64_t, float (&x)[V]) const {
    const Raw<T, V> pack = packs[p * blockDim.x];
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] = pack[i];
  }

  Raw<T, V>* packs;
};

// The rows that a gradient is computed from, and their statistics. Those of packs are fetched one round ahead, if
// shared memory has room for two.
template <class T, int V, int kPacks>
class Source {
 public:
  static constexpr bool kStaged = V > 1;
  using Part = std::conditional_t<kStaged, StagedPart<T, V>, RowPart<T, V, kPacks>>;
  struct Row {
    Part x, dy, dsum;
    double mean, scale;
  };

  __device__ Source(const Backward<T>& in, const RowGroup& group) : in_(in), group_(group) {
    if constexpr (kStaged) {
      fetch(blockIdx.x * int64_t{group.rows_per_block()}, 0);
      for (int i = static_cast<int>(threadIdx.x); i < in.length; i += static_cast<int>(blockDim.x))
        weights()[i] = in.weight ? in.weight[i] : narrow<T>(1);
      __syncthreads();
    }
  }

  /// Those of some columns, or false for none. Staged rows find them, or ones, in shared memory: no branch.
  __device__ __forceinline__ bool weight(int64_t column, float (&to)[V]) const {
    if constexpr (kStaged)
      load(weights() + column, to);
    else if (in_.weight)
      load(in_.weight + column, to);
    return kStaged || in_.weight;
  }
  /// Row `first` + the group's place in the block; rows are taken in order.
  __device__ __forceinline__ Row take(int64_t first) {
    const int64_t row = first + group_.index_in_block(), length = row < in_.rows ? in_.length : 0;
    if constexpr (kStaged) {
      const double mean = mean_, scale = scale_;
      const int64_t next = first + int64_t{gridDim.x} * group_.rows_per_block();
      const int stage = stage_;
      if (in_.stages > 1) fetch(next, stage_ = 1 - stage_);
      if (in_.stages > 1)
        wait_for_copies<1>();
      else
        wait_for_copies<0>();
      return {part(stage, 0), part(stage, 1), part(stage, 2), mean, scale};
    } else {
      const int64_t read = row < in_.rows ? row : first;
      return {Part(in_.x + in_.x_row(read), group_, length), Part(in_.dy + in_.dy_row(read), group_, length),
              Part(in_.dsum + in_.dsum_row(read), group_, in_.dsum ? length : 0), in_.mean ? in_.mean[read] : 0,
              in_.scale[read]};
    }
  }
  /// Called when the row taken last is done with.
  __device__ __forceinline__ void release(int64_t first) {
    if constexpr (kStaged) {
      if (in_.stages == 1) fetch(first + int64_t{gridDim.x} * group_.rows_per_block(), 0);
    }
  }

 private:
  __device__ static Raw<T, V>* staged() {
    extern __shared__ __align__(16) unsigned char shared[];
    return reinterpret_cast<Raw<T, V>*>(shared);
  }
  // Shared memory: the rows, tensor by tensor and stage by stage, then the weights.
  __device__ Part part(int stage, int tensor) const {
    const int tensors = in_.dsum ? 3 : 2;
    return {staged() + (stage * tensors + tensor) * kPacks * blockDim.x + threadIdx.x};
  }
  __device__ T* weights() const {
    return reinterpret_cast<T*>(staged() + in_.stages * (in_.dsum ? 3 : 2) * kPacks * blockDim.x);
  }
  __device__ __forceinline__ void fetch(int64_t first, int stage) {
    const int64_t row = first + group_.index_in_block();
    if (row < in_.rows) {
      const T *const x = in_.x + in_.x_row(row), *const dy = in_.dy + in_.dy_row(row);
      const T* const dsum = in_.dsum + in_.dsum_row(row);
      const Part x_part = part(stage, 0), dy_part = part(stage, 1), dsum_part = part(stage, 2);
      for_packs<V, kPacks>(group_, in_.length, [&](int p, int) {
        x_part.fetch(x, group_, p);
        dy_part.fetch(dy, group_, p);
        if (in_.dsum) dsum_part.fetch(dsum, group_, p);
      });
      mean_ = in_.mean ? in_.mean[row] : 0;
      scale_ = in_.scale[row];
    }
    commit_copies();
  }

  const Backward<T>& in_;
  const RowGroup& group_;
  double mean_ = 0, scale_ = 0;
  int stage_ = 0;
};

// The sums of one parameter over the rows that a thread saw: in registers, or for kPacks = 0 in the partial row.
template <int V, int kPacks>
struct ColumnSums {
  __device__ __forceinline__ void add(int p, int64_t column, float* partial, const float (&a)[V], const float (&b)[V],
                                      bool first) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if constexpr (kPacks > 0)
        values[p][i] = fmaf(a[i], b[i], values[p][i]);
      else if (partial)
        partial[column + i] = fmaf(a[i], b[i], first ? 0 : partial[column + i]);
    }
  }

  // The groups of a block in their order.
  __device__ void leave(const RowGroup& group, int64_t length, float* partial) const {
    __shared__ __align__(32) float stage[kBlockThreads * kHeldWide];
    const bool alone = group.rows_per_block() == 1;
    float* const to = alone ? partial : stage + group.index_in_block() * length;
    __syncthreads();
    for_packs<V, kPacks>(group, length, [&](int p, int column) { store(to + column, values[p]); });
    if (alone) return;
    __syncthreads();
    for (int column = static_cast<int>(threadIdx.x); column < length; column += static_cast<int>(blockDim.x)) {
      float total = 0;
      for (int i = 0; i < group.rows_per_block(); ++i) total += stage[i * length + column];
      partial[column] = total;
    }
  }

  float values[kPacks > 0 ? kPacks : 1][V] = {};
};

template <class T, bool kCentred, int V, int kPacks>
__global__ void __launch_bounds__(kMostGroupThreads) backward(const __grid_constant__ Backward<T> in) {
  wait_for_previous();
  const RowGroup group(in.group);
  const int64_t rows_per_block = group.rows_per_block(), columns = (kCentred ? 2 : 1) * in.length;
  float* const weight_partial = in.partials ? in.partials + blockIdx.x * columns : nullptr;
  float* const bias_partial = in.partials ? weight_partial + in.length : nullptr;
  ColumnSums<V, kPacks> dweight, dbias;
  bool first_row = true;
  Source<T, V, kPacks> source(in, group);
  for (int64_t first = blockIdx.x * rows_per_block; first < in.rows; first += gridDim.x * rows_per_block) {
    const int64_t row = first + group.index_in_block(), length = row < in.rows ? in.length : 0;
    const auto [x, dy, dsum, mean, scale] = source.take(first);
    const Normalise<kCentred> normalise(mean, scale);
    const auto weighted = [&](int p, auto column, float(&g)[V]) {
      dy.get(p, column, g);
      float weight[V];
      if (!source.weight(column, weight)) return;
#pragma unroll
      for (int i = 0; i < V; ++i) g[i] *= weight[i];
    };

    float means[2] = {};  // of g and of g * n
    for_packs<V, kPacks>(group, length, [&](int p, auto column) {
      float values[V], g[V];
      x.get(p, column, values);
      weighted(p, column, g);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if constexpr (kCentred) means[0] += g[i];
        means[1] += g[i] * normalise(values[i]);
      }
    });
    group.reduce(means);
    const float mean_g = means[0] / static_cast<float>(in.length);
    const float mean_gn = scale == in.constant_scale ? 0 : means[1] / static_cast<float>(in.length);

    T* const dx = in.dx ? in.dx + row * in.length : nullptr;
    for_packs<V, kPacks>(group, length, [&](int p, auto column) {
      float n[V], cotangent[V], g[V], d[V] = {}, ones[V];
      x.get(p, column, n);
      dy.get(p, column, cotangent);
      weighted(p, column, g);
      if (in.dsum) dsum.get(p, column, d);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        n[i] = normalise(n[i]);
        ones[i] = 1;
        d[i] = fmaf(fmaf(-n[i], mean_gn, kCentred ? g[i] - mean_g : g[i]), normalise.scale, d[i]);
      }
      if (dx) store(dx + column, d);
      dweight.add(p, column, weight_partial, cotangent, n, first_row);
      if constexpr (kCentred) dbias.add(p, column, bias_partial, cotangent, ones, first_row);
    });
    first_row = false;
    source.release(first);
  }
  if constexpr (kPacks > 0) {
    if (!in.partials) return;
    dweight.leave(group, in.length, weight_partial);
    if constexpr (kCentred) dbias.leave(group, in.length, bias_partial);
  }
}

constexpr size_t kReserved = 20 << 10;  // of shared memory, for the sums of a block
constexpr double kNever = -1;           // a scale that no row has

template <bool kCentred>
void run(const char* op, const Tensor& x, const Tensor& weight, const double* mean, const double* scale,
         double constant_scale, const Tensor& dy, const Tensor& dsum, Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const int64_t rows = row_count(x), length = row_length(x);
  const bool wants_sums = dweight.defined() || dbias.defined();
  if (length == 0 || (rows == 0 && !wants_sums)) return;
  const Launch launch(op, x);
  dispatch_storage(op, x.dtype(), [&]<class T>() {
    Backward<T> in{.x = x.data<T>(),
                   .weight = address_of<T>(weight),
                   .dy = dy.data<T>(),
                   .dsum = address_of<T>(dsum),
                   .mean = mean,
                   .scale = scale,
                   .dx = address_of<T>(dx),
                   .partials = nullptr,
                   .x_row = RowOffsets(x),
                   .dy_row = RowOffsets(dy),
                   .dsum_row = dsum.defined() ? RowOffsets(dsum) : RowOffsets(),
                   .rows = rows,
                   .length = length,
                   .constant_scale = constant_scale};
    const bool wide = rows_in_packs<T>(x, weight, dy, dsum, dx);
    dispatch_row_parts<T>(length, wide, [&]<int V, int kPacks>(const RowGroups& groups) {
      in.group = groups.log2_size;
      const auto kernel = backward<T, kCentred, V, kPacks>;
      const size_t stage = V == 1 ? 0 : (dsum.defined() ? 3 : 2) * groups.block() * kPacks * sizeof(Raw<T, V>);
      const size_t weights = V == 1 ? 0 : static_cast<size_t>(length) * sizeof(T);
      in.stages = 2 * stage + weights + kReserved <= launch.device().shared_bytes_per_block ? 2 : 1;
      const size_t shared_bytes = in.stages * stage + weights;
      const int resident =
          launch.blocks_per_multiprocessor(reinterpret_cast<const void*>(kernel), groups.block(), shared_bytes);
      const int64_t blocks = std::min<int64_t>(blocks_for(rows, groups.rows_per_block()),
                                               int64_t{resident} * launch.device().multiprocessors);
      Tensor partials;
      if (wants_sums) {
        partials = Tensor::empty({blocks, kCentred ? 2 : 1, length}, DType::f32, x.device());
        in.partials = partials.data<float>();
      }
      launch.with({.shared_bytes = shared_bytes, .overlaps = true}, kernel, static_cast<unsigned>(blocks),
                  groups.block(), in);
      if (wants_sums) add_partials(launch, partials, dweight, dbias);
    });
  });
}

}  // namespace

void rms_norm_gradient(const Tensor& x, const Tensor& weight, const Tensor& scale, const Tensor& dy, const Tensor& dsum,
                       double floor, Tensor& dx, Tensor& dweight) {
  Tensor no_bias;
  run<false>("rms_norm", x, weight, nullptr, scale.data<double>(), floor > 0 ? 1 / floor : kNever, dy, dsum, dx,
             dweight, no_bias);
}

void layer_norm_gradient(const Tensor& x, const Tensor& weight, const Tensor& mean, const Tensor& scale,
                         const Tensor& dy, const Tensor& dsum, Tensor& dx, Tensor& dweight, Tensor& dbias) {
  run<true>("layer_norm", x, weight, mean.data<double>(), scale.data<double>(), kNever, dy, dsum, dx, dweight, dbias);
}

}  // namespace monoid::cuda

// AdamW over every parameter in one launch. A parameter moves 28 bytes an element (f32: read and write parameter and
// both moments, read the gradient; bf16: the same for its master, and the parameter and gradient at half size), so the
// floor is 28 n / bandwidth. The table of parameters travels as a kernel argument: nothing is read from the host when
// a captured graph is replayed. Each block owns one piece of one parameter and finds it by bisection.
// The norm sums squares in double: a partial a block, then one block adds them in order.

#include <algorithm>
#include <vector>

#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/optim.h"
#include "monoid/kernels/optim_math.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPieceElements = 8192;  // of a parameter, a block
constexpr int kMostItems = 256;       // of a launch: the table must fit a kernel's arguments

template <class Item>
struct Table {
  int count;
  int64_t first_piece[kMostItems + 1];  // blocks before each item; ascending
  Item items[kMostItems];
};

struct Piece {
  int item;
  int64_t begin, end;  // elements
};

// The piece of this block: the last item whose first piece is not after it.
template <class Item>
__device__ Piece piece_of_block(const Table<Item>& table) {
  const int64_t block = blockIdx.x;
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first_piece[middle] <= block ? low : high) = middle;
  }
  const int64_t begin = (block - table.first_piece[low]) * kPieceElements;
  return {low, begin, min(begin + kPieceElements, table.items[low].elements)};
}

// Calls launch(table, pieces) for all items, kMostItems at a time; `describe` fills one entry.
template <class Item, class Items, class Describe, class Run>
void in_tables(const Items& items, Describe describe, Run run) {
  for (size_t first = 0; first < items.size(); first += kMostItems) {
    Table<Item> table;
    table.count = static_cast<int>(std::min<size_t>(kMostItems, items.size() - first));
    int64_t pieces = 0;
    for (int i = 0; i < table.count; ++i) {
      table.items[i] = describe(items[first + static_cast<size_t>(i)]);
      table.first_piece[i] = pieces;
      pieces += blocks_for(table.items[i].elements, kPieceElements);
    }
    table.first_piece[table.count] = pieces;
    run(table, pieces);
  }
}

// -------------------------------------------------------------------------------------------------------------- adamw

struct AdamWEntry {
  void* parameter;
  const void* gradient;
  float *master, *mean, *mean_square;
  int64_t elements;
  int place, group;
  double learning_rate_scale, weight_decay;
};

// Counts the update and makes its numbers, one thread a parameter.
__global__ void prepare(const __grid_constant__ Table<AdamWEntry> table, AdamWSettings settings, double* counts,
                        const double* learning_rate, const double* scales, AdamWScalars<float>* prepared) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= table.count) return;
  const AdamWEntry& entry = table.items[i];
  if (scales && isnan(scales[entry.group])) return;
  const double count = counts[entry.place] += 1;
  prepared[i] =
      AdamWScalars<float>::make(settings, *learning_rate * entry.learning_rate_scale, entry.weight_decay, count);
}

// Elements [begin, end) by packs of N; T is the storage of parameter and gradient.
template <class T, int N>
__device__ void update_piece(const AdamWEntry& entry, const AdamWScalars<float>& scalars, float scale, int64_t begin,
                             int64_t end) {
  T* const parameters = static_cast<T*>(entry.parameter);
  const T* const gradients = static_cast<const T*>(entry.gradient);
  float* const exact = entry.master ? entry.master : static_cast<float*>(entry.parameter);
  for (int64_t i = begin + threadIdx.x * N; i < end; i += kThreads * N) {
    float parameter[N], gradient[N], mean[N], square[N];
    load<N>(exact + i, parameter);
    load<N>(gradients + i, gradient);
    load<N>(entry.mean + i, mean);
    load<N>(entry.mean_square + i, square);
#pragma unroll
    for (int n = 0; n < N; ++n) scalars.update(scale * gradient[n], parameter[n], mean[n], square[n]);
    store<N>(exact + i, parameter);
    store<N>(entry.mean + i, mean);
    store<N>(entry.mean_square + i, square);
    if constexpr (sizeof(T) != sizeof(float)) store<N>(parameters + i, parameter);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    update(const __grid_constant__ Table<AdamWEntry> table, const double* scales, const AdamWScalars<float>* prepared) {
  constexpr int kPack = 4;
  const Piece piece = piece_of_block(table);
  const AdamWEntry& entry = table.items[piece.item];
  const double scale = scales ? scales[entry.group] : 1;
  if (isnan(scale)) return;
  const AdamWScalars<float> scalars = prepared[piece.item];
  const bool aligned = aligned_for<kPack>(static_cast<const T*>(entry.parameter)) &&
                       aligned_for<kPack>(static_cast<const T*>(entry.gradient)) && aligned_for<kPack>(entry.mean) &&
                       aligned_for<kPack>(entry.mean_square) && aligned_for<kPack>(entry.master);
  const int64_t packed_end = aligned ? piece.begin + (piece.end - piece.begin) / kPack * kPack : piece.begin;
  update_piece<T, kPack>(entry, scalars, static_cast<float>(scale), piece.begin, packed_end);
  update_piece<T, 1>(entry, scalars, static_cast<float>(scale), packed_end, piece.end);
}

// --------------------------------------------------------------------------------------------------------------- norm

struct GradientEntry {
  const void* gradient;
  int64_t elements;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_squares(const __grid_constant__ Table<GradientEntry> table, double* partials) {
  constexpr int kPack = kWide<T>;
  const Piece piece = piece_of_block(table);
  const T* const gradients = static_cast<const T*>(table.items[piece.item].gradient);
  const int64_t packed_end =
      aligned_for<kPack>(gradients) ? piece.begin + (piece.end - piece.begin) / kPack * kPack : piece.begin;
  double sum = 0;
  for (int64_t i = piece.begin + threadIdx.x * kPack; i < packed_end; i += kThreads * kPack) {
    float values[kPack];
    load<kPack>(gradients + i, values);
#pragma unroll
    for (int n = 0; n < kPack; ++n) sum += static_cast<double>(values[n]) * static_cast<double>(values[n]);
  }
  for (int64_t i = packed_end + threadIdx.x; i < piece.end; i += kThreads) {
    const double value = widen(gradients[i]);
    sum += value * value;
  }
  sum = block_reduce<kThreads>(sum, 0.0);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

constexpr int kMostGroups = 64;

struct Groups {
  int count;
  bool together;
  int64_t first[kMostGroups + 1];  // partials before each group, whose gradients are in order
  double limits[kMostGroups];
};

// One block: groups one after the other, each summed in a fixed order.
__global__ void __launch_bounds__(kThreads)
    finish_norms(const __grid_constant__ Groups groups, const double* partials, double* norms, double* scales) {
  double total = 0;
  for (int group = 0; group < groups.count; ++group) {
    double sum = 0;
    for (int64_t i = groups.first[group] + threadIdx.x; i < groups.first[group + 1]; i += kThreads) sum += partials[i];
    sum = block_reduce<kThreads>(sum, 0.0);
    total += sum;
    if (threadIdx.x != 0) continue;
    norms[group] = std::sqrt(sum);
    if (!groups.together) scales[group] = clip_scale(std::sqrt(sum), groups.limits[group]);
  }
  if (threadIdx.x != 0) return;
  norms[groups.count] = std::sqrt(total);
  for (int group = 0; groups.together && group < groups.count; ++group)
    scales[group] = clip_scale(std::sqrt(total), groups.limits[0]);
}

}  // namespace

void adamw(Tensor& counts, const Tensor& learning_rate, const Tensor& scales, std::span<const AdamWItem> items,
           const AdamWSettings& settings) {
  if (items.empty()) return;
  const Launch launch("adamw", counts);
  const DType dtype = items.front().parameter.dtype();
  for (const AdamWItem& item : items) {
    check(item.parameter.dtype() == dtype, "adamw: parameters are ", dtype, " and ", item.parameter.dtype(),
          "; on CUDA the parameters of one optimizer have one dtype");
  }
  const auto describe = [](const AdamWItem& item) {
    const auto address = [](const Tensor& x) { return x.defined() ? static_cast<float*>(x.raw()) : nullptr; };
    return AdamWEntry{item.parameter.raw(),         item.gradient.raw(),
                      address(item.master),         address(item.mean),
                      address(item.mean_square),    item.parameter.elements(),
                      static_cast<int>(item.place), static_cast<int>(item.group),
                      item.learning_rate_scale,     item.weight_decay};
  };
  dispatch_storage("adamw", dtype, [&]<class T>() {
    const Tensor prepared =
        Tensor::empty({kMostItems, static_cast<int64_t>(sizeof(AdamWScalars<float>))}, DType::u8, counts.device());
    auto* const scalars = static_cast<AdamWScalars<float>*>(prepared.raw());
    const double* const group_scales = address_of<double>(scales);
    in_tables<AdamWEntry>(items, describe, [&](const Table<AdamWEntry>& table, int64_t pieces) {
      launch(prepare, static_cast<unsigned>(blocks_for(table.count, kThreads)), kThreads, table, settings,
             counts.data<double>(), learning_rate.data<double>(), group_scales, scalars);
      launch(update<T>, static_cast<unsigned>(pieces), kThreads, table, group_scales, scalars);
    });
  });
}

void gradient_norms(Tensor& norms, Tensor& scales, std::span<const GradientItem> items,
                    std::span<const double> limits) {
  const Launch launch("gradient_norms", norms);
  Groups groups{};
  groups.count = static_cast<int>(scales.elements());
  check(groups.count <= kMostGroups, "gradient_norms: ", groups.count, " parameter groups, at most ", kMostGroups,
        " on CUDA");
  groups.together = limits.size() == 1;
  std::copy(limits.begin(), limits.end(), groups.limits);
  int64_t partial_count = 0;
  for (const GradientItem& item : items) {
    partial_count += blocks_for(item.gradient.elements(), kPieceElements);
    for (int64_t later = item.group + 1; later <= groups.count; ++later) groups.first[later] = partial_count;
  }
  const Tensor partials = Tensor::empty({partial_count}, DType::f64, norms.device());
  double* next = Tensor(partials).data<double>();
  if (!items.empty()) {
    dispatch_storage("gradient_norms", items.front().gradient.dtype(), [&]<class T>() {
      const auto describe = [](const GradientItem& item) {
        return GradientEntry{item.gradient.data<T>(), item.gradient.elements()};
      };
      in_tables<GradientEntry>(items, describe, [&](const Table<GradientEntry>& table, int64_t pieces) {
        launch(sum_squares<T>, static_cast<unsigned>(pieces), kThreads, table, next);
        next += pieces;
      });
    });
  }
  launch(finish_norms, 1, kThreads, groups, partials.data<double>(), norms.data<double>(), scales.data<double>());
}

}  // namespace monoid::cuda
